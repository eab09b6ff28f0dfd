"""How doubtful each example is, by any uncertainty, and the examples in that order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from batchensemble.checks import one_of
from batchensemble.metrics.labels import class_probs
from batchensemble.predictions import Prediction

PerExample = Float[np.ndarray, "examples"]
UNCERTAINTIES = ("total", "aleatoric", "epistemic", "confidence")


def doubt(prediction: Prediction, by: Any = "total") -> PerExample:
    """Return a number for each example that is higher where the prediction is less sure.

    Args:
        prediction: of any ensemble.
        by: ``"total"``, ``"aleatoric"`` or ``"epistemic"``, in nats; ``"confidence"``, 1 minus the
            probability of the predicted class; or numbers of your own, ``[examples]``.

    Raises:
        ValueError: an unknown name, a wrong shape, or a number that is not finite.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.0, 1.0]]]))
        >>> doubt(sure, "confidence").tolist()
        [0.25, 0.0]
    """
    probs = class_probs(prediction)
    if isinstance(by, str):
        one_of("by", by, UNCERTAINTIES)
        name = by
        found = 1 - probs.max(1) if by == "confidence" else getattr(prediction, by)
    else:
        name = "the uncertainty"
        found = np.asarray(by, dtype=np.float64)
    return finite(name, found, len(prediction))


def finite(name: str, values: Any, examples: int) -> PerExample:
    """Return finite numbers, one an example, as float64.

    Raises:
        ValueError: they are of another shape or not finite.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (examples,):
        raise ValueError(
            f"{name} must have the shape [{examples}], one an example, got {list(found.shape)}"
        )
    if not np.isfinite(found).all():
        wrong = examples - int(np.isfinite(found).sum())
        raise ValueError(f"{name} must be finite, got {wrong} of {examples} that are not")
    return found


def name_of(by: Any) -> str:
    """Return what figures and tables call an uncertainty.

    Example:
        >>> name_of("epistemic"), name_of(np.zeros(3))
        ('epistemic', 'given')
    """
    return by if isinstance(by, str) else "given"


@dataclass(frozen=True)
class Ranking:
    """The examples from the surest on; those that tie in their doubt come at once.

    Attributes:
        doubt: each value that occurs, ascending, ``[values]``.
        accepted: how many examples have at most that doubt, ``[values]``.
        losses: the sum of their losses, ``[values]``.

    Example:
        >>> ranking = rank(np.array([0.3, 0.1, 0.3]), np.array([1.0, 0.0, 0.0]))
        >>> ranking.doubt.tolist(), ranking.accepted.tolist(), ranking.losses.tolist()
        ([0.1, 0.3], [1, 3], [0.0, 1.0])
    """

    doubt: Float[np.ndarray, "values"]
    accepted: Int[np.ndarray, "values"]
    losses: Float[np.ndarray, "values"]


def rank(doubt: PerExample, losses: PerExample) -> Ranking:
    """Return the examples in the order of their doubt, after one sort."""
    order = np.argsort(doubt)
    ordered = doubt[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], len(ordered) > 0))
    return Ranking(ordered[ends], ends + 1, losses[order].cumsum()[ends])
