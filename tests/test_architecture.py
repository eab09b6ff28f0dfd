"""The house stays as docs/architecture.md draws it."""

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "batchensemble"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def named_paths():
    """Return the files and folders that the page names."""
    return sorted(set(re.findall(r"`([a-z_/]+(?:\.py|/))`", PAGE)))


def test_nothing_lies_loose_in_the_package():
    loose = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert loose == {"__init__.py", "__main__.py", "py.typed"}


def test_the_page_has_the_packages_in_the_order_of_the_lint_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(each["layers"] for each in contracts["contracts"] if "layers" in each)
    order = [name.strip() for row in layers for name in row.split("|")]
    assert re.findall(r"^\| `([a-z]+)/` \|", PAGE, re.MULTILINE) == order
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(order)


@pytest.mark.parametrize("name", named_paths())
def test_what_the_page_names_is_there(name):
    inside = [PACKAGE / name, *(PACKAGE / package.name / name for package in PACKAGE.iterdir())]
    places = [*inside, PACKAGE.parent / name, ROOT / name]
    assert any(place.exists() for place in places)
