"""The settings of ``batchensemble train``: one flat table, stored as TOML.

Keys are the arguments of ``fit`` and of the method, and a few of the command itself. The resolved
table has a value for every setting.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from batchensemble.comparison.results import ARCHITECTURES, LOSSES_OF
from batchensemble.core.arguments import nearest, one_of, whole_number
from batchensemble.core.strict_json import brief
from batchensemble.data.datasets import NAMED
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.encoding.encoding import ColumnChoices
from batchensemble.data.tables.targets import TASKS
from batchensemble.ensembles import METHODS
from batchensemble.training.fit import fit
from batchensemble.training.optim.schedules import COOLDOWN
from batchensemble.training.table_recipe import TableRecipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS_FILE = "run.toml"  # in the folder of a model
OWN: dict[str, Any] = {
    "data": "moons",
    "target": None,
    "classes": None,
    "task": None,
    "validation": None,
    "separator": None,
    "decimal": None,
    "encoding": None,
    "gaps": None,
    "memory_limit": None,
    "drop": None,
    "keep_columns": None,
    "categorical": None,
    "numeric": None,
    "method": "batch",
    "members": 4,
    "architecture": None,
    "hidden": [128, 128],
    "dropout": None,
    "network": None,
}
COLUMN_CHOICES = ("drop", "keep_columns", "categorical", "numeric")  # lists of columns of a file
OF_RECIPE = ("branch_at", "independent", "init")  # arguments of a method that the recipe chooses
POINT_LOSSES = ("mse", "huber")  # losses that model no noise
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
SIZE = re.compile(r"(?P<number>\d+(\.\d+)?) ?((?P<prefix>[kmgt])(?P<binary>i)?)?b?")
MOST_SETTINGS_BYTES = 2**20  # of a file of settings
SETTING_KINDS: dict[str, Any] = {  # types of the settings that other commands read from a folder
    **dict.fromkeys(
        ("data", "target", "validation", "network", "task", "method", "loss", "architecture"), str
    ),
    **dict.fromkeys(("seed", "batch_size"), int),
    "memory_limit": (int, str),
}
# Arguments that the command line sets itself, or that a file cannot hold.
NOT_OF_FIT = {
    "model",
    "checkpoints",
    "resume",
    "callbacks",
    "progress",
    "label",
    "class_names",
    "per_member_targets",  # a table has one column of targets
}
NOT_OF_METHOD = {"self", "network", "members", "reset", "inplace"}


def resolve(*given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings: the defaults, overridden by the given ones.

    The defaults of a table in files are those of
    :class:`~batchensemble.training.table_recipe.TableRecipe`; its batch size depends on the number
    of rows, and is missing unless it is given.

    Args:
        given: settings by name, later ones override earlier ones; ``None`` means not given.

    Raises:
        ValueError: unknown method or setting, or settings that exclude each other.
        TypeError: a setting of the command itself has the wrong type.

    Example:
        >>> settings = resolve({"epochs": 3}, {"rank": 2, "mode": "additive"})
        >>> settings["epochs"], settings["rank"], settings["members"], settings["lr"]
        (3, 2, 4, 0.001)
        >>> settings = resolve({"data": "cars.csv", "hidden": [64]})
        >>> settings["architecture"], settings["hidden"], settings["members"], settings["lr"]
        ('table', [64], 8, 0.002)
    """
    asked = {key: value for each in given for key, value in each.items() if value is not None}
    method = one_of("method", asked.get("method", OWN["method"]), METHODS)
    own = {**OWN, **_of_table(asked)}
    known = {**method_defaults(method), **fit_defaults(), **own, **_of_task(asked)}
    for key in asked:
        if key not in known:
            raise ValueError(
                f"there is no setting {key!r}{nearest(key, known)}; with method {method} there are "
                f"{', '.join(sorted(known))}"
            )
    fixed = METHODS[method].fixed_members
    if fixed not in (None, asked.get("members", fixed)):
        count = "one member" if fixed == 1 else f"{fixed} members"
        raise ValueError(f"method {method} has {count}, got members = {asked['members']}")
    settings = {**known, **({} if fixed is None else {"members": fixed}), **asked}
    widths = settings["hidden"]
    if not isinstance(widths, list) or any(type(width) is not int for width in widths):
        raise TypeError(f"hidden must be whole numbers such as [128, 128], got {widths!r}")
    _drop_what_does_not_apply(settings, asked)
    _check_lists(settings)
    Dialect.from_settings(settings)  # raises if it is invalid
    if settings["memory_limit"] is not None:
        settings["memory_limit"] = size_in_bytes(settings["memory_limit"])
    return {key: value for key, value in settings.items() if value is not None}


def _of_table(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for a table in files; none for a named data set.

    A complete file of settings without an architecture is of an earlier version, which trained
    perceptrons.
    """
    if asked.get("data", OWN["data"]) in NAMED:
        return {}
    complete = {name for name, value in fit_defaults().items() if value is not None} - {*OWN}
    if "architecture" not in asked and complete <= asked.keys():
        return {"architecture": "perceptron"}
    recipe = TableRecipe()
    return {
        **recipe.fit_arguments(rows=0),
        "batch_size": None,
        "members": recipe.members,
        "architecture": "table",
        "hidden": list(recipe.hidden),
        "dropout": recipe.dropout,
    }


def _drop_what_does_not_apply(settings: dict[str, Any], asked: Mapping[str, Any]) -> None:
    """Remove settings that do not go with others, so that what is written can be given again.

    Raises:
        ValueError: one of them was asked for.
    """
    if "network" in asked:
        for name in ("hidden", "architecture", "dropout"):
            if name in asked:
                raise ValueError(
                    f"{name} is for the network that is made here; drop it, or network"
                )
            settings[name] = None
        return
    source = settings["data"]
    for name in COLUMN_CHOICES if source in NAMED else ():
        if name in asked:
            option = name.removesuffix("_columns")
            raise ValueError(f"{option} is for the columns of a file, and {source} is none")
    architecture = settings["architecture"]
    if architecture is not None:
        one_of("architecture", architecture, ARCHITECTURES)
    if source in NAMED and architecture == "table":
        raise ValueError(f"architecture table is for files, and {source} is none; leave it out")
    if architecture == "table":
        settings |= {name: asked.get(name) for name in OF_RECIPE}
        return
    if "dropout" in asked:
        raise ValueError("dropout is for architecture table; leave one of the two out")
    settings["dropout"] = None


def _check_lists(settings: Mapping[str, Any]) -> None:
    """Check that classes and columns are lists of names.

    Raises:
        TypeError: one is not.
    """
    for name in ("classes", *COLUMN_CHOICES):
        given = settings[name]
        if given is not None and (
            not isinstance(given, list) or any(type(each) is not str for each in given)
        ):
            raise TypeError(f"{name} must be names such as ['low', 'mid', 'high'], got {given!r}")


def column_choices(settings: Mapping[str, Any]) -> ColumnChoices:
    """Return what settings say about the columns of a file."""
    return ColumnChoices(*(tuple(settings.get(name) or ()) for name in COLUMN_CHOICES))


def _of_task(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that depend on the task: targets of regression are standardised.

    Raises:
        ValueError: unknown task, a loss of the other task, or a loss that models no noise without
            the task.
    """
    task, loss = asked.get("task"), asked.get("loss")
    if task is not None:
        one_of("task", task, TASKS)
    if loss is None:
        loss = "gaussian_nll" if task == "regression" else "cross_entropy"
    numbers = loss in LOSSES_OF["regression"]
    if task is not None and numbers != (task == "regression"):
        raise ValueError(f"loss {loss!r} is not for {task}; leave one of the two out")
    # Settings of earlier versions have no task, but standardise_targets for regression.
    if task is None and loss in POINT_LOSSES and "standardise_targets" not in asked:
        raise ValueError(
            f"loss {loss!r} models no noise, so that intervals are too narrow; give --task "
            f"regression, which models it, or --task regression --loss {loss} to predict means only"
        )
    return {"loss": loss, "standardise_targets": numbers}


def size_in_bytes(size: int | str) -> int:
    """Return a size in bytes.

    Args:
        size: bytes, or text with a unit such as ``"512MB"`` (10^6) or ``"512MiB"`` (2^20).

    Raises:
        TypeError: it is neither a whole number nor text.
        ValueError: it is not positive, or the text is not a size.

    Example:
        >>> size_in_bytes("512MB"), size_in_bytes("1.5 GiB"), size_in_bytes(4096)
        (512000000, 1610612736, 4096)
    """
    if not isinstance(size, str):
        return whole_number("memory_limit", size)
    found = SIZE.fullmatch(size.strip().lower())
    if found is None:
        raise ValueError(
            f"memory_limit must be bytes, such as 512MB, 2GB, 1GiB or 4096, got {size!r}"
        )
    prefix, binary = found["prefix"] or "", 1024 if found["binary"] else 1000
    number = float(found["number"]) * binary ** POWERS[prefix]
    return whole_number("memory_limit", int(number))


def fit_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``fit`` among the settings; a ``patience`` of 0 is none."""
    found = {key: settings[key] for key in fit_defaults() if key in settings and key not in OWN}
    if found.get("patience") == 0:
        del found["patience"]
    return found


def method_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the method among the settings."""
    return {key: settings[key] for key in method_defaults(settings["method"]) if key in settings}


def fit_defaults() -> dict[str, Any]:
    """Return the defaults of the arguments of ``fit`` that a file can hold."""
    return {**_defaults(fit, NOT_OF_FIT), "cooldown": COOLDOWN}  # a table has a length


def method_defaults(method: str) -> dict[str, Any]:
    """Return the defaults of the arguments of a method that a file can hold."""
    return _defaults(METHODS[method].kind.__init__, NOT_OF_METHOD)


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings from a TOML or JSON file.

    Raises:
        ValueError: it is neither, or a setting has the wrong type.
        OSError: it cannot be read.
    """
    kind = "JSON" if path.suffix == ".json" else "TOML"
    with path.open("rb") as file:  # may be a pipe made by the user
        content = file.read(MOST_SETTINGS_BYTES + 1)
    try:
        if len(content) > MOST_SETTINGS_BYTES:
            raise ValueError(f"it is larger than {MOST_SETTINGS_BYTES:,} bytes")
        text = content.decode("utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {kind}: not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not {kind}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is not {kind} of settings: it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold settings by name, got a {type(found).__name__}")
    for name, types in SETTING_KINDS.items():
        value = found.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, types)):
            raise ValueError(
                f"{path}: {name} must be {'text' if types is str else 'a number'}, got "
                f"{brief(value)}"
            )
    if found.get("memory_limit") is not None:
        found["memory_limit"] = size_in_bytes(found["memory_limit"])
    return found


def write(settings: Mapping[str, Any]) -> str:
    """Return settings as TOML.

    Example:
        >>> print(write({"data": "moons", "hidden": [8], "shuffle": True, "lr": 1e-05}), end="")
        data = "moons"
        hidden = [8]
        shuffle = true
        lr = 1e-05
    """
    lines = (
        f"{key} = {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n"
        for key, value in settings.items()
    )
    return "".join(lines)


def parse(assignments: Iterable[str]) -> dict[str, Any]:
    """Return settings given as ``key=value``; a value that is not TOML is taken as text.

    Raises:
        ValueError: an assignment has no ``=``.

    Example:
        >>> parse(["rank=2", "mode=additive", 'exclude=["0"]', "compile=true"])
        {'rank': 2, 'mode': 'additive', 'exclude': ['0'], 'compile': True}
    """
    settings: dict[str, Any] = {}
    for each in assignments:
        key, equals, value = each.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"give settings as key=value, such as rank=2, got {each!r}")
        try:
            settings[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = value.strip()
    return settings


def _defaults(function: Any, without: set[str]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {
        each.name: list(each.default) if isinstance(each.default, tuple) else each.default
        for each in parameters
        if each.name not in without and each.default is not inspect.Parameter.empty
    }
