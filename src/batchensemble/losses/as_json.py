"""Convert losses to and from JSON, so that a saved model knows what its outputs mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from batchensemble.core.strict_json import brief
from batchensemble.losses.base import EnsembleLoss
from batchensemble.losses.by_name import LOSSES
from batchensemble.losses.distilled import (
    DistilledClasses,
    DistilledLabels,
    DistilledNormals,
    DistilledPoints,
)
from batchensemble.losses.numbers import NumberLoss
from batchensemble.losses.standardised import Standardised

LARGEST_WEIGHT = 1e300  # magnitude of a setting, beyond which float64 soon overflows
LOSS_KINDS: dict[str, Any] = {
    **LOSSES,
    "standardised": Standardised,
    "distilled_classes": DistilledClasses,
    "distilled_labels": DistilledLabels,
    "distilled_normals": DistilledNormals,
    "distilled_points": DistilledPoints,
}


def to_dict(loss: EnsembleLoss) -> dict[str, Any] | None:
    """Return the name and settings of a loss; ``None`` for a user's own loss.

    Example:
        >>> from batchensemble.losses import Huber
        >>> to_dict(Huber(delta=2.0))
        {'name': 'huber', 'settings': {'delta': 2.0}}
    """
    name = next((name for name, kind in LOSS_KINDS.items() if type(loss) is kind), None)
    if name is None:
        return None
    settings = {each.name: _plain(getattr(loss, each.name)) for each in fields(loss)}  # type: ignore[arg-type]
    return {"name": name, "settings": settings}


def from_dict(written: Mapping[str, Any]) -> EnsembleLoss:
    """Return the loss that :func:`to_dict` described.

    Raises:
        ValueError: the name or a setting is unknown, or a value is invalid.
    """
    if not isinstance(written, Mapping) or not isinstance(written.get("name"), str):
        raise ValueError(f"a loss has a name and settings, got {brief(written)}")
    name, settings = written["name"], written.get("settings")
    if name not in LOSS_KINDS:
        raise ValueError(
            f"the loss must be one of {', '.join(LOSS_KINDS)}, got {brief(name)}; the model was "
            "saved by a later version"
        )
    known = [each.name for each in fields(LOSS_KINDS[name])]
    if not isinstance(settings, Mapping) or not set(settings) <= set(known):
        raise ValueError(
            f"the settings of {name} are {', '.join(known) or 'none'}, got {brief(settings)}"
        )
    values = {key: _read(name, key, value) for key, value in settings.items()}
    try:
        loss: EnsembleLoss = LOSS_KINDS[name](**values)
    except TypeError as error:
        raise ValueError(f"a setting of {name} has the wrong type: {error}") from None
    return loss


def _read(name: str, key: str, value: Any) -> Any:
    """Return one setting: a number, a list, class weights, or the loss of standardised targets.

    Raises:
        ValueError: the value is invalid.
    """
    if name == "standardised" and key == "loss":
        inner = value.get("name") if isinstance(value, Mapping) else None
        if inner == name:
            raise ValueError("standardised takes a loss that is not standardised itself")
        loss = from_dict(value)
        if not isinstance(loss, NumberLoss):
            raise ValueError(f"standardised takes a loss of numbers, got {inner}")
        return loss
    if isinstance(value, Mapping) and key == "class_weight":
        if not all(each.isdecimal() and len(each) < 10 for each in value):
            raise ValueError(f"{key} is by class number, got {brief(list(value))}")
        _check_numbers(name, key, list(value.values()))
        return {int(number): weight for number, weight in value.items()}
    if isinstance(value, str) and key == "class_weight":
        return value
    if value is None or key == "ignore_index":
        return value
    if isinstance(value, list):
        _check_numbers(name, key, value)
        return list(map(float, value))
    _check_numbers(name, key, [value])
    return float(value)


def _check_numbers(name: str, key: str, values: list[Any]) -> None:
    for each in values:
        if (
            isinstance(each, bool)
            or not isinstance(each, (int, float))
            or abs(each) >= LARGEST_WEIGHT
        ):
            raise ValueError(f"{key} of {name} holds no numbers that can be used: {brief(each)}")


def _plain(value: Any) -> Any:
    if isinstance(value, EnsembleLoss):
        return to_dict(value)
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): float(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [float(each) for each in value]
    return value
