"""Losses as JSON can hold them, so that a saved model knows what its outputs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from batchensemble.losses.base import EnsembleLoss
from batchensemble.losses.choosing import LOSSES
from batchensemble.losses.standardised import Standardised

KINDS: dict[str, Any] = {**LOSSES, "standardised": Standardised}


def as_dict(loss: EnsembleLoss) -> dict[str, Any] | None:
    """Return a loss by name and settings; ``None`` for one that is not of the package's.

    Example:
        >>> from batchensemble.losses import Huber
        >>> as_dict(Huber(delta=2.0))
        {'name': 'huber', 'settings': {'delta': 2.0}}
    """
    name = next((name for name, kind in KINDS.items() if type(loss) is kind), None)
    if name is None:
        return None
    settings = {each.name: _plain(getattr(loss, each.name)) for each in fields(loss)}  # type: ignore[arg-type]
    return {"name": name, "settings": settings}


def from_dict(written: Mapping[str, Any]) -> EnsembleLoss:
    """Return the loss that :func:`as_dict` wrote down.

    Raises:
        ValueError: there is none of this name.
    """
    if written["name"] not in KINDS:
        raise ValueError(
            f"the loss must be one of {', '.join(KINDS)}, got {written['name']!r}; the model is of "
            "a later version"
        )
    settings = {
        name: from_dict(each) if isinstance(each, dict) and "settings" in each else each
        for name, each in written["settings"].items()
    }
    if isinstance(weights := settings.get("class_weight"), dict):
        settings["class_weight"] = {int(name): weight for name, weight in weights.items()}
    loss: EnsembleLoss = KINDS[written["name"]](**settings)
    return loss


def _plain(value: Any) -> Any:
    if isinstance(value, EnsembleLoss):
        return as_dict(value)
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): float(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [float(each) for each in value]
    return value
