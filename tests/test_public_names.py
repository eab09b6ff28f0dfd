"""What other people's scripts call stays as it is, unless somebody means to change it.

    python tests/test_public_names.py    # writes tests/public_names.txt anew

A change of that file belongs into CHANGELOG.md; a name that goes stays two releases, see
CONTRIBUTING.md.
"""

import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import batchensemble as be
from batchensemble.ensembles.runner import MemberRunner

SNAPSHOT = Path(__file__).with_name("public_names.txt")
MODULES = ("losses", "metrics", "predictions", "uncertainty")
PACKAGES = ("decisions", "ensembles", "layers", "report", "report.plots")


def described():
    """Return a line for each public name: with its arguments and their defaults, without types."""
    lines = []
    for name in sorted(set(be.__all__) - {"__version__", *MODULES}):
        lines += of_object(f"batchensemble.{name}", getattr(be, name))
    for name in (*MODULES, *PACKAGES):
        module = (
            getattr(be, name) if name in MODULES else pkgutil.resolve_name(f"{be.__name__}.{name}")
        )
        for each in sorted(names_in(module)):
            lines += of_object(f"batchensemble.{name}.{each}", getattr(module, each), brief=True)
    return lines


def names_in(module):
    """Return what a module exports: all that it lists, else the functions and classes it has."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return listed
    own = vars(module).items()
    return [name for name, each in own if getattr(each, "__module__", "") == module.__name__]


def of_object(name, found, *, brief=False):
    if isinstance(found, ModuleType):
        return []
    if not callable(found):
        return [name]
    lines = [f"{name}{signature(found)}"]
    if inspect.isclass(found) and not brief:
        for each in sorted(dir(found)):
            member = inspect.getattr_static(found, each)
            if each.startswith("_") or not belongs(found, each):
                continue
            is_call = callable(getattr(member, "__func__", member))
            lines.append(f"{name}.{each}{signature(getattr(found, each)) if is_call else ''}")
    return lines


def belongs(kind, name):
    """Tell whether a class has a name itself: not from torch or Python, nor from Ensemble.

    How an ensemble runs its members is between it and its first call.
    """
    owner = next(each for each in kind.__mro__ if name in vars(each))
    if name in vars(MemberRunner) and name != "member":
        return False
    inherited = kind is not be.Ensemble and owner in be.Ensemble.__mro__
    return owner.__module__.startswith("batchensemble") and not inherited


def signature(found):
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return ""
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    shown = [each if default_is_plain(each) else each.replace(default=...) for each in bare]
    return str(inspect.Signature(shown))


def default_is_plain(parameter):
    return isinstance(parameter.default, (str, int, float, bool, tuple, type, type(None)))


@pytest.mark.parametrize("name", sorted(be.__all__))
def test_each_public_name_is_there(name):
    assert getattr(be, name) is not None


def test_public_names_and_their_arguments_are_those_of_the_snapshot():
    expected = SNAPSHOT.read_text().splitlines()
    found = described()
    gone, new = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    assert (gone, new) == ([], []), f"if this is meant: python {Path(__file__).name}, and CHANGELOG"


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(described()) + "\n")
