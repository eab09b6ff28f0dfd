"""The house stays as docs/architecture.md draws it."""

import ast
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

FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 70
# A file of a method ends with its record, and all of these have one name.
SHARED_NAMES = {"METHOD", "__all__"}


def named_paths():
    """Return the files and folders that the page names."""
    return sorted(set(re.findall(r"`([a-z_/]+(?:\.py|/))`", PAGE)))


def functions(path):
    """Yield each function of a file with the number of its lines, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            lines = node.end_lineno - first + 1
            if ast.get_docstring(node):
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def public_names(path):
    """Return the names that a module defines, not those that it imports."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


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


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_a_file_and_each_function_of_it_fit_the_eye(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    assert {name: lines for name, lines in functions(path) if lines > LONGEST_FUNCTION} == {}


def test_no_name_of_a_module_has_two_meanings():
    homes = {}
    for path in FILES:
        for name in public_names(path):
            if not name.startswith("_") and name not in SHARED_NAMES:
                homes.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}
