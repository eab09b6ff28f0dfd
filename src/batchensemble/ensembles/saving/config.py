"""Read and validate ``config.json`` of a saved ensemble before anything is built from it.

A later version may write additional keys at the top level and in ``data``, which are ignored; if
the meaning of a key changes, ``format`` changes, too. Everything else must be as this version
writes it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from batchensemble.core.strict_json import brief, read_json
from batchensemble.ensembles import METHODS
from batchensemble.ensembles.calibrators import CALIBRATORS
from batchensemble.ensembles.networks import MOST_LAYERS
from batchensemble.ensembles.saving.architectures import is_record
from batchensemble.ensembles.tasks import TaskRecord
from batchensemble.losses import from_dict
from batchensemble.losses.as_json import LARGEST_WEIGHT

CONFIG_FORMAT = 1
CONFIG = "config.json"
SELECTORS = ("include", "independent", "exclude", "one_by_one")
# Building takes time for each member, module and pattern.
MOST_MEMBERS = 65_536
MOST_RANK = 2**20
MOST_NAMES = 50_000  # of modules
MOST_PATTERNS = 100
LONGEST_TEXT = 256  # characters of a name of a module
FUNCTION = re.compile(r"\w[\w.-]*:\w[\w.]*")
PATTERN = re.compile(r"[*?\[]")
NOT_SAVED = {"self", "network", "members", "reset", "inplace"}


class ConfigError(ValueError):
    """A configuration that no saved ensemble can have."""


def read_config(folder: str | Path, name: str = CONFIG) -> dict[str, Any]:
    """Return the configuration of a saved ensemble: everything but its weights.

    Args:
        folder: the folder.
        name: name of the file in it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, has another format, or holds an invalid value.
    """
    path = Path(folder) / name
    if not path.exists():
        raise FileNotFoundError(f"there is no model in {folder}: it has no {name}")
    try:
        return check_config(read_json(path), path)
    except ConfigError as error:
        raise ValueError(f"{error}; it is damaged, save the model again") from None


def check_config(config: Any, path: Path) -> dict[str, Any]:
    """Return a configuration after validating it.

    Args:
        config: the parsed JSON.
        path: path of the file, for errors.

    Raises:
        ConfigError: a value is missing, has the wrong type or is out of range.
        ValueError: it has another format, or an unknown option.
    """
    if not isinstance(config, dict) or "format" not in config:
        raise ConfigError(f"{path} is no model's: it has no format")
    if config["format"] != CONFIG_FORMAT or isinstance(config["format"], bool):
        raise ValueError(
            f"{path} is of format {brief(config['format'])}, written by batchensemble "
            f"{_writer(config)}, and this is batchensemble {version('batchensemble')}, which reads "
            f"format {CONFIG_FORMAT}; read it with the version that wrote it"
        )
    for name, (check, expected) in _TOP.items():
        if name not in config and name not in _LATER:
            raise ConfigError(f"{path} has no {name}")
        if name in config and not check(config[name]):
            raise _wrong(path, name, expected, config[name])
    fixed = METHODS[config["method"]].fixed_members
    if fixed not in (None, config["members"]):
        expected = f"{fixed} of the method {config['method']!r}"
        raise _wrong(path, "members", expected, config["members"])
    scaled = config.get("feature_scaling")
    if scaled is not None and len(scaled[0]) != len(config.get("feature_names") or ()):
        raise _wrong(path, "feature_scaling", "a number for each of the feature_names", scaled)
    _check_options(path, config["method"], config["options"])
    if config.get("calibration") is not None:
        _check_calibration(path, config["calibration"], config["members"])
    if config.get("choice") is not None:
        _check_choice(path, config["choice"], config["members"])
    _check_tasks(path, config.get("tasks", []), config["members"])
    if config.get("data") is not None:
        _check_data(path, config["data"])
    if config.get("loss") is not None:
        try:
            from_dict(config["loss"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}: the loss cannot be made: {error}") from None
    return config


def _wrong(path: Path, name: str, expected: str, got: Any) -> ConfigError:
    return ConfigError(f"{path}: {name} must be {expected}, got {brief(got)}")


def _writer(config: Mapping[str, Any]) -> str:
    versions = config.get("versions")
    by = versions.get("batchensemble") if isinstance(versions, dict) else None
    return by[:40] if isinstance(by, str) else "of an unknown version"


def _check_options(path: Path, method: str, options: Mapping[str, Any]) -> None:
    known = set(inspect.signature(METHODS[method].kind).parameters) - NOT_SAVED
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"{path}: {method} has no option {brief(name)}; it is damaged, or a later version "
                "wrote it: read it with that one"
            )
        check, expected = _OPTIONS.get(name, (_is_plain, "a number, text or a list of texts"))
        if not check(value):
            raise _wrong(path, name, expected, value)


def _check_calibration(path: Path, calibration: Any, members: int) -> None:
    """Check the method, pooling and shapes of a calibrator."""
    name = "calibration"
    if not isinstance(calibration, dict) or set(calibration) != {"method", "pooling", "shapes"}:
        raise _wrong(path, name, "a method, a pooling and shapes", calibration)
    method, pooling, shapes = (calibration[key] for key in ("method", "pooling", "shapes"))
    if not isinstance(method, str) or method not in CALIBRATORS:
        raise _wrong(path, name, f"one of {', '.join(CALIBRATORS)}", method)
    if pooling not in ("before", "after"):
        raise _wrong(path, f"{name}'s pooling", "'before' or 'after'", pooling)
    buffers = CALIBRATORS[method].axes
    if not isinstance(shapes, dict) or set(shapes) != set(buffers):
        raise _wrong(path, f"{name}'s shapes", f"those of {', '.join(buffers)}", shapes)
    groups = (1,) if pooling == "after" else (1, members)
    for each, shape in shapes.items():
        fitting = (
            isinstance(shape, list)
            and all(_is_whole(size, 1, 2**40) for size in shape)
            and len(shape) == buffers[each]
            and shape == shapes[next(iter(buffers))]
            and shape[0] in groups
            and all(size > 1 for size in shape[1:])
        )
        if not fitting:
            raise _wrong(
                path, f"{name}'s shape of {each}", "that of its members and classes", shape
            )


def _check_choice(path: Path, choice: Any, members: int) -> None:
    """Check the record of members that were chosen from a larger ensemble."""
    expected = "which of how many members were chosen, and their scores"
    keys = {"chosen", "members", "score", "scores", "score_of_all"}
    if not isinstance(choice, dict) or set(choice) != keys:
        raise _wrong(path, "choice", expected, choice)
    chosen, of, scores = (choice[key] for key in ("chosen", "members", "scores"))
    fitting = (
        _is_whole(of, 1, MOST_MEMBERS)
        and isinstance(chosen, list)
        and all(_is_whole(each, 0, of - 1) for each in chosen)
        and len(set(chosen)) == len(chosen) == members
        and isinstance(scores, list)
        and members <= len(scores) <= of
        and all(map(_is_number, scores))
        and _is_name(choice["score"])
        and (choice["score_of_all"] is None or _is_number(choice["score_of_all"]))
    )
    if not fitting:
        raise _wrong(path, "choice", expected, choice)


def _check_tasks(path: Path, tasks: Any, members: int) -> None:
    """Check the records of the tasks that members have learnt."""
    if len(tasks) > members:
        raise _wrong(path, "tasks", f"at most {members}, one for each member", len(tasks))
    for number, task in enumerate(tasks):
        try:
            found = TaskRecord.from_json(task)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}, got {brief(task)}") from None
        if not all(0 <= each < number for each in found.confused_with):
            raise _wrong(path, "confused_with", "earlier tasks", task)


def _check_data(path: Path, data: Any) -> None:
    """Check the keys of ``data`` that commands use; others are the user's."""
    if not isinstance(data, dict):
        raise _wrong(path, "data", "an object", data)
    for name in ("feature_names", "class_names"):
        names = data.get(name, [])
        if not _are_texts(names) or len(set(names)) < len(names):
            raise _wrong(path, name, "different texts", names)
    mean, scale = data.get("mean", []), data.get("scale", [])
    if not _is_scaling([mean, scale]):
        expected = "lists of one length, and scale must be numbers above 0"
        raise _wrong(path, "mean and scale", expected, [mean, scale])
    if mean and len(mean) != len(data.get("feature_names", [])):
        raise _wrong(path, "mean", "a number for each of the feature_names", mean)
    if not isinstance(data.get("target"), str | None):
        raise _wrong(path, "target", "the name of a column", data["target"])


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < LARGEST_WEIGHT
    )


def _is_setting(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 < value < LARGEST_WEIGHT)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


def _is_title(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4_096


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_scaling(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or [type(each) for each in value] != [list, list]:
        return False
    mean, scale = value
    if len(mean) != len(scale) or not all(map(_is_number, (*mean, *scale))):
        return False
    return all(each > 1 / LARGEST_WEIGHT for each in scale)


def _are_different(value: Any) -> bool:
    return value is None or (_are_texts(value) and len(set(value)) == len(value))


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_NAMES and all(map(_is_name, value))


def _are_selectors(value: Any) -> bool:
    if value is None:
        return True
    return _are_names(value) and sum(map(_is_pattern, set(value))) <= MOST_PATTERNS


def _is_pattern(text: str) -> bool:
    return PATTERN.search(text) is not None


def _is_plain(value: Any) -> bool:
    plain = value is None or isinstance(value, bool) or _is_number(value) or _is_name(value)
    return plain or _are_names(value)


def _is_text_by_text(value: Any) -> bool:
    return isinstance(value, dict) and _are_names(list(value.values()))


def _is_network(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or len(value) != 1:
        return False
    function = value.get("function")
    if function is not None:
        return _is_name(function) and FUNCTION.fullmatch(function) is not None
    return is_record(value)


def _is_init(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None or _is_name(value)
    if len(value) != 1 or not set(value) <= {"feature_signs", "feature_normals"}:
        return False
    [widths] = value.values()
    return (
        isinstance(widths, list)
        and 1 <= len(widths) <= MOST_NAMES
        and all(_is_whole(each, 1, 2**40) for each in widths)
    )


def _is_optional(kind: type) -> Callable[[Any], bool]:
    return lambda value: value is None or isinstance(value, kind)


def _is_one_of(allowed: Collection[Any]) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, (bool, dict, list)) and value in allowed


Check = tuple[Callable[[Any], bool], str]
_LATER = (
    "feature_names",
    "feature_scaling",
    "encoding",
    "target_names",
    "class_names",
    "frozen",
    "calibration",
    "loss",
    "trained_on",
    "choice",
    "tasks",
    "data",
)  # keys that older folders may lack
_TOP: dict[str, Check] = {
    "method": (_is_one_of(METHODS), f"one of {', '.join(METHODS)}"),
    "members": (
        lambda value: _is_whole(value, 1, MOST_MEMBERS),
        f"a whole number from 1 to {MOST_MEMBERS:,}",
    ),
    "options": (lambda value: isinstance(value, dict), "an object"),
    "network": (
        _is_network,
        "null, a function 'package.module:function', the widths of 1 to "
        f"{MOST_LAYERS:,} layers, or the sizes of a table's network",
    ),
    "training": (lambda value: isinstance(value, bool), "true or false"),
    "tied": (_is_text_by_text, "names by name"),
    "frozen": (_are_names, "a list of names"),
    "feature_names": (_are_different, "null or different texts"),
    "feature_scaling": (_is_scaling, "null, or means and deviations above 0, as many"),
    "encoding": (_is_optional(dict), "null or an object"),
    "target_names": (_are_different, "null or different texts"),
    "class_names": (_are_different, "null or different texts"),
    "trained_on": (
        lambda value: value is None or _is_title(value),
        "a text of up to 4,096 letters",
    ),
    "calibration": (_is_optional(dict), "an object"),
    "loss": (_is_optional(dict), "an object"),
    "choice": (_is_optional(dict), "an object"),
    "tasks": (lambda value: isinstance(value, list), "a list"),
    "data": (_is_optional(dict), "an object"),
    "versions": (_is_text_by_text, "versions by name"),
    "sha256": (
        lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
        "64 hexadecimal digits",
    ),
}
_NAMES = f"names of modules, up to {LONGEST_TEXT:,} characters each and {MOST_PATTERNS} patterns"
_OPTIONS: dict[str, Check] = {
    "rank": (lambda value: _is_whole(value, 1, MOST_RANK), f"from 1 to {MOST_RANK:,}"),
    "alpha": (_is_setting, "null or a number above 0"),
    "init": (_is_init, "null, a name, or the widths of feature_signs or feature_normals"),
    "std": (_is_setting, "null or a number above 0"),
    "batch_axis": (_is_one_of([0, 1]), "0 or 1"),
    "batch_repetition": (lambda value: _is_whole(value, 1, 2**20), "from 1 to 1,048,576"),
    "input_repetition": (lambda value: _is_number(value) and 0 <= value <= 1, "from 0 to 1"),
    "stacked": (_is_optional(bool), "null, true or false"),
    "branch_at": (lambda value: value is None or _is_name(value), "null or a module's name"),
    "untiled": (_are_names, "a list of names"),
    **dict.fromkeys(SELECTORS, (_are_selectors, _NAMES)),
}
