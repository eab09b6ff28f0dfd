"""What a folder says of an ensemble beside its weights: from the model to JSON, and back."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from batchensemble.core.strict_json import MOST_BYTES, parse_json
from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.ensembles.choice import Choice
from batchensemble.ensembles.methods import method_of
from batchensemble.ensembles.saving.architectures import record_of
from batchensemble.ensembles.saving.config import CONFIG_FORMAT, SELECTORS, check_config
from batchensemble.ensembles.tasks import TaskRecord
from batchensemble.layers.rank_one.initialisation import FeatureDraws
from batchensemble.losses import from_dict, to_dict


def description_of(
    model: Ensemble, network: str | None, data: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return all that a folder says of an ensemble, but for its tensors.

    Args:
        model: the ensemble.
        network: function that builds the plain network, as ``"package.module:function"``.
        data: further information, as JSON can hold it.

    Raises:
        ValueError: it is not of one of the package's methods, or a function selected the whole
            network.
    """
    return {
        "format": CONFIG_FORMAT,
        "method": _method(model),
        "members": model.members,
        "options": _options(model),
        "network": _source(model, network),
        "training": model.training,
        "calibration": None if model.calibrator is None else model.calibrator.settings(),
        "loss": None if model.loss is None else to_dict(model.loss),
        "trained_on": model.trained_on,
        "choice": None if model.choice is None else model.choice.as_json(),
        "tasks": [each.as_json() for each in model.tasks],
        "feature_names": model.feature_names,
        "feature_scaling": None if model.feature_names is None else model.feature_scaling,
        "encoding": model.encoding,
        "target_names": model.target_names,
        "class_names": model.class_names,
        "data": None if data is None else dict(data),
        "versions": versions(),
    }


def json_of(config: Mapping[str, Any], file: str) -> bytes:
    """Return a description as JSON, which loading would accept.

    Raises:
        ValueError: it is too long, or loading would refuse it.
    """
    text = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    if len(text) > MOST_BYTES:
        raise ValueError(f"{file} can have {MOST_BYTES:,} bytes, got {len(text):,}; shorten data")
    try:
        check_config(parse_json(text, file), Path(file))
    except ValueError as error:
        raise ValueError(f"load would refuse what is to be saved: {error}") from None
    return text


def restore(model: Ensemble, config: Mapping[str, Any]) -> None:
    """Set what a validated description says of an ensemble whose tensors are in place."""
    if model.calibrator is not None:
        model.calibrator.check()
    if config.get("loss") is not None:
        model.loss = from_dict(config["loss"])
    model.trained_on = config.get("trained_on")
    if config.get("choice") is not None:
        model.choice = Choice.from_json(config["choice"])
    model.tasks = tuple(map(TaskRecord.from_json, config.get("tasks", ())))
    for name in ("feature_names", "target_names", "class_names"):
        if config.get(name) is not None:
            setattr(model, name, tuple(config[name]))
    _tell_scaling(model, config)
    model.encoding = config.get("encoding")
    model.train(config["training"])


def _tell_scaling(model: Ensemble, config: Mapping[str, Any]) -> None:
    """Set the means and deviations that the model's columns are standardised by."""
    given, data = config.get("feature_scaling"), config.get("data") or {}
    if given is None and "feature_scaling" not in config and data.get("mean"):
        # Earlier versions stored it in ``data``, for the commands only.
        given = data["mean"], data["scale"]
        model.feature_names = tuple(data["feature_names"])
    if given is not None:
        model.feature_scaling = tuple(given[0]), tuple(given[1])


def versions() -> dict[str, str]:
    """Return the versions of this package, torch and Python."""
    return {
        "batchensemble": version("batchensemble"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _method(model: Ensemble) -> str:
    method = method_of(model)
    if method is None:
        raise ValueError(
            f"save knows the methods {', '.join(METHODS)}, got a {type(model).__name__}; save its "
            "state_dict()"
        )
    return method.name


def _options(model: Ensemble) -> dict[str, Any]:
    for argument in SELECTORS:
        if "" in (model.options.get(argument) or ()):
            raise ValueError(
                f"{argument} was given a class or function that selects the network itself, which "
                "has no name to save; name its modules"
            )
    init = model.options.get("init")
    if isinstance(init, FeatureDraws):
        return {**model.options, "init": {f"feature_{init.draw}": list(init.widths)}}
    if callable(init):  # what it filled is in the weights
        return {**model.options, "init": None}
    return model.options


def _source(model: Ensemble, network: str | None) -> dict[str, Any] | None:
    """Return how to build the plain network, if that is known."""
    if network is not None:
        return {"function": network}
    with torch.random.fork_rng([]):
        return record_of(model.member(0))
