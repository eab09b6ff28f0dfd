"""An estimator in a folder: a model that the command line reads too, JSON, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as bytes_of_arrays
from sklearn.utils.validation import check_is_fitted

from batchensemble.core.atomic_files import open_regular, write_whole
from batchensemble.data.tables.class_labels import ClassNames
from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.encoding.cells import level_of
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.schema import Columns
from batchensemble.decisions import Threshold
from batchensemble.ensembles.saving import load, read_config, save
from batchensemble.predictions import Normals, Prediction
from batchensemble.tabular.rows import KeptRows
from batchensemble.training.history import History

KEPT = "kept_rows.safetensors"
MOST_KEPT_BYTES = 2**34
PREDICTIONS: dict[str, Any] = {each.__name__: each for each in (Prediction, Normals)}
Saved = TypeVar("Saved")


def save_estimator(estimator: Any, folder: str | Path) -> Path:
    """Write a fitted estimator into a folder.

    The folder is also one of a model: ``batchensemble predict`` and ``inspect`` read it.

    Args:
        estimator: a fitted one.
        folder: created if it is not there; files of an earlier model are replaced.

    Returns:
        The folder.

    Raises:
        NotFittedError: it is not fitted.
        ValueError: the classes are neither numbers, truth values nor words.
        OSError: the folder cannot be written.
    """
    check_is_fitted(estimator, "model_")
    classes = getattr(estimator, "classes_", None)
    names = ClassNames(() if classes is None else map(level_of, classes.tolist()))
    encoding = estimator.encoding_
    threshold: Threshold | None = getattr(estimator, "threshold_", None)
    record = {
        "kind": type(estimator).__name__,
        "parameters": {
            name: _plain(value) for name, value in estimator.get_params(deep=False).items()
        },
        "classes": None if classes is None else _classes_as_json(classes),
        "feature_names_in": _listed(getattr(estimator, "feature_names_in_", None)),
        "n_features_in": int(estimator.n_features_in_),
        "history": estimator.history_.to_dict(),
        "kept": None if estimator.kept_ is None else type(estimator.kept_.prediction).__name__,
        "threshold": None if threshold is None else _threshold_as_json(threshold),
    }
    columns = Columns(encoding.names, names, encoding)
    folder = save(estimator.model_, folder, data={**columns.to_dict(), "estimator": record})
    kept = folder / KEPT
    if estimator.kept_ is None:
        kept.unlink(missing_ok=True)
    else:
        write_whole(kept, bytes_of_arrays(_arrays_of(estimator.kept_)))
    return folder


def load_estimator(folder: str | Path, kind: type[Saved]) -> Saved:
    """Read an estimator that :func:`save_estimator` wrote; nothing that the folder names is run.

    Args:
        folder: of the estimator.
        kind: its class.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: it is no such estimator, or is damaged.
    """
    data = read_config(folder).get("data") or {}
    record = data.get("estimator")
    if not isinstance(record, dict) or "kind" not in record:
        raise ValueError(
            f"{folder} holds no estimator; read a model with batchensemble.load, or save an "
            "estimator with estimator.save(folder)"
        )
    if record["kind"] != kind.__name__:
        raise ValueError(
            f"{folder} holds a {record['kind']!r:.99}, and this is {kind.__name__}; call the load "
            "of that class"
        )
    try:
        return _rebuilt(Path(folder), data, kind)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the estimator in {folder} is damaged: {error}") from None


def _rebuilt(folder: Path, data: Mapping[str, Any], kind: type[Saved]) -> Saved:
    record, estimator = data["estimator"], cast("Any", kind())
    known = estimator.get_params(deep=False)
    estimator.set_params(
        **{name: _parameter(each) for name, each in record["parameters"].items() if name in known}
    )
    estimator.model_ = load(folder)
    estimator.model_.to(estimator._device())
    estimator.encoding_ = TableEncoding.from_dict(data["encoding"])
    estimator.n_features_in_ = int(record["n_features_in"])
    if record["feature_names_in"] is not None:
        estimator.feature_names_in_ = np.array(record["feature_names_in"], dtype=object)
    if record["classes"] is not None:
        estimator.classes_ = _classes_from_json(record["classes"])
    estimator.history_ = History.from_dict(dict(record["history"]))
    estimator.n_iter_ = estimator.history_.epochs
    estimator.kept_ = None if record["kept"] is None else _kept_from(folder, record["kept"])
    if record["threshold"] is not None:
        estimator.threshold_ = _threshold_from_json(record["threshold"])
    found: Saved = estimator
    return found


def _plain(value: Any) -> Any:
    """Return a parameter as JSON can hold it; generators of random numbers are left out."""
    if isinstance(value, (np.ndarray, list, tuple, set)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {"mapping": [[_plain(name), _plain(each)] for name, each in value.items()]}
    return value if value is None or isinstance(value, (str, int, float, bool)) else None


def _parameter(written: Any) -> Any:
    """Return the parameter that :func:`_plain` wrote."""
    if isinstance(written, dict):
        return dict(written["mapping"])
    return tuple(written) if isinstance(written, list) else written


def _listed(names: Any) -> list[str] | None:
    return None if names is None else list(map(str, names))


def _classes_as_json(classes: Array) -> dict[str, Any]:
    kinds = {type(each).__name__ for each in classes.tolist()}
    if len(kinds) > 1 or not kinds <= {"str", "int", "float", "bool"}:
        raise ValueError(
            f"classes must be words, numbers or truth values to be saved, got {', '.join(kinds)}"
        )
    return {"type": classes.dtype.str, "values": classes.tolist()}


def _classes_from_json(written: Mapping[str, Any]) -> Array:
    kind, values = np.dtype(written["type"]), written["values"]
    if kind.kind not in "OUbiuf":
        raise TypeError(f"classes of the type {kind}")
    return np.array(values, object if kind.kind == "O" else kind)


def _threshold_as_json(threshold: Threshold) -> dict[str, Any]:
    """Return a threshold as JSON can hold it, which knows no infinite numbers."""
    return {
        name: repr(value) if isinstance(value, float) else value
        for name, value in asdict(threshold).items()
    }


def _threshold_from_json(written: Mapping[str, Any]) -> Threshold:
    texts = {name: value for name, value in written.items() if isinstance(value, str)}
    return Threshold(**{**written, **{name: float(texts[name]) for name in texts if name != "by"}})


def _arrays_of(kept: KeptRows) -> dict[str, Array]:
    found: Any = kept.prediction
    arrays = {each.name: getattr(found, each.name) for each in fields(found)}
    arrays = {name: values for name, values in arrays.items() if isinstance(values, np.ndarray)}
    return {
        name: np.ascontiguousarray(values)
        for name, values in {**arrays, "inputs": kept.inputs, "targets": kept.targets}.items()
    }


def _kept_from(folder: Path, kind: str) -> KeptRows:
    with open_regular(folder / KEPT) as file:
        content = file.read(MOST_KEPT_BYTES)
    try:
        arrays = read_arrays(content)
    except SafetensorError as error:
        raise ValueError(f"{folder / KEPT} is damaged: {error}") from None
    inputs, targets = arrays.pop("inputs"), arrays.pop("targets")
    return KeptRows(inputs, PREDICTIONS[kind](**arrays), targets)
