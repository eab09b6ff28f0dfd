"""Import the function that builds a saved model's network, only if the user trusts it.

A folder can name such a function as text. Importing it runs code of the folder's author, so the
user has to allow it. The working directory is never searched.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from batchensemble.ensembles.networks import attribute_of, imported, network_of

Trust = bool | str | Iterable[str]


def trusted_network(folder: Path, function: str, trust: Trust) -> nn.Module:
    """Return the network of the function that a saved model names, if the user trusts it.

    The function itself must be defined in a trusted package: a module that imports ``os`` does not
    make ``os.abort`` trusted. The working directory and the folder are not searched.

    Args:
        folder: folder of the model.
        function: the function as the folder names it, ``"package.module:function"``.
        trust: ``True``: any installed package but Python's standard library, which has no networks;
            names of packages: these only; ``False``: nothing.

    Raises:
        ValueError: the function is not trusted, or does not exist.
        ImportError: the module is not installed, or its import fails.
        TypeError: it does not return a network, or ``trust`` has the wrong type.

    Example:
        >>> trusted_network(Path("runs/m"), "os:abort", trust=True)
        Traceback (most recent call last):
        ValueError: runs/m names os:abort, ... no networks; give the network as network=
    """
    packages = packages_of(trust)
    module_name, _, name = function.partition(":")
    root = module_name.partition(".")[0]
    if packages == ():
        raise ValueError(
            f"{folder} names {function} to make its network, and nothing that a folder names is "
            f"run unless you trust it: give the network itself as network=, or trust=[{root!r}] "
            "for that package alone, or trust=True for whatever it names (on the command line "
            "--network or --trust)"
        )
    _check_trusted(folder, function, module_name, packages)
    with _without_local_modules(folder):
        try:
            module = imported(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != root:
                raise
            raise ImportError(
                f"{folder} names {function}, and there is no {error.name} installed; the working "
                "directory is not searched: install it, or give the network as network= (--network)"
            ) from error
        way = attribute_of(module, name)
        for each in way:
            if isinstance(each, ModuleType):
                _check_trusted(folder, function, each.__name__, packages)
        if not isinstance(way[-1], nn.Module):
            made_by: Any = way[-1]
            while isinstance(made_by, functools.partial):
                made_by = made_by.func
            origin = getattr(made_by, "__module__", None)
            _check_trusted(folder, function, str(origin or "builtins"), packages)
        return network_of(function, way[-1])


def packages_of(trust: Trust) -> tuple[str, ...] | None:
    """Return the names of trusted packages; ``None`` if all are trusted.

    Raises:
        TypeError: ``trust`` is neither a boolean nor names of packages.

    Example:
        >>> packages_of(["torchvision"]), packages_of(True), packages_of(False)
        (('torchvision',), None, ())
    """
    if isinstance(trust, bool):
        return None if trust else ()
    names = (trust,) if isinstance(trust, str) else trust
    if not isinstance(names, Iterable) or not all(isinstance(each, str) for each in names):
        raise TypeError(
            "trust must be True, False or names of packages, such as trust=['torchvision'], got "
            f"{trust!r}"
        )
    return tuple(names)


def _check_trusted(
    folder: Path, function: str, module: str, packages: tuple[str, ...] | None
) -> None:
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root == "builtins":
        raise ValueError(
            f"{folder} names {function}, which is of Python's own {root}, where there are no "
            "networks; give the network as network="
        )
    if packages is not None and not any(
        module == each or module.startswith(f"{each}.") for each in packages
    ):
        raise ValueError(
            f"{folder} names {function}, which is of {module}, and you trust "
            f"{', '.join(packages)} alone; give the network as network=, or trust=[{root!r}] if "
            "you trust that package"
        )


@contextmanager
def _without_local_modules(folder: Path) -> Iterator[None]:
    """Exclude the working directory and the folder of a model from imports."""
    beside = {os.path.realpath("."), os.path.realpath(folder)}
    before = sys.path[:]
    sys.path[:] = [each for each in before if os.path.realpath(each or ".") not in beside]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # In the place, since others hold this very list; what an import added stays.
        added = [each for each in sys.path if each not in before]
        sys.path[:] = [*before, *added]
