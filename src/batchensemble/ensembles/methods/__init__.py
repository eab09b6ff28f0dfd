"""The methods: one file each, and here one line each."""

from __future__ import annotations

from collections.abc import Iterable

from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.methods import (
    batch,
    deep,
    film,
    last_layer,
    masksembles,
    mc_dropout,
    mimo,
    single,
    tabm,
)
from batchensemble.ensembles.methods.method import Method, Style

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        single.METHOD,
        deep.METHOD,
        batch.METHOD,
        mimo.METHOD,
        film.METHOD,
        last_layer.METHOD,
        masksembles.METHOD,
        mc_dropout.METHOD,
        tabm.METHOD,
        tabm.MINI,
    )
}


def method_of(model: Ensemble) -> Method | None:
    """Return the method of an ensemble; ``None`` for a user's own class."""
    return next((each for each in METHODS.values() if type(model) is each.kind), None)


def baseline_among(names: Iterable[str]) -> str | None:
    """Return the first of these methods that is a single network.

    Example:
        >>> baseline_among(["deep", "single"]), baseline_among(["deep"])
        ('single', None)
    """
    return next((name for name in names if name in METHODS and METHODS[name].fixed_members), None)


def independent_among(names: Iterable[str]) -> str | None:
    """Return the first of these methods whose members share no weights.

    Example:
        >>> independent_among(["batch", "deep"]), independent_among(["batch"])
        ('deep', None)
    """
    return next((name for name in names if name in METHODS and METHODS[name].independent), None)


__all__ = [
    "METHODS",
    "Method",
    "Style",
    "baseline_among",
    "independent_among",
    "method_of",
]
