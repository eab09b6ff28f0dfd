"""An uncertainty score for each example, and examples sorted by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from batchensemble.core.arguments import one_of
from batchensemble.data.tables.columns import refuse_times
from batchensemble.metrics.labels import class_probs
from batchensemble.predictions import Prediction, RegressionPrediction

ExampleScores = Float[np.ndarray, "examples"]
BOTH = ("total", "aleatoric", "epistemic")
UNCERTAINTIES = (*BOTH, "confidence")  # of classes


def uncertainty_score(
    prediction: Prediction | RegressionPrediction, by: Any = "total"
) -> ExampleScores:
    """Return a score for each example that is higher where the prediction is more uncertain.

    Args:
        prediction: prediction of any ensemble, with one class or one number for each example.
        by: ``"total"`` (the default), ``"aleatoric"`` or ``"epistemic"``: entropies in nats for
            classes, variances for numbers; for classes also ``"confidence"``, 1 minus the
            probability of the predicted class; or your own numbers, ``[examples]``.

    Raises:
        ValueError: an unknown name, a wrong shape, or a number that is not finite.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.0, 1.0]]]))
        >>> uncertainty_score(sure, "confidence").tolist()
        [0.25, 0.0]
    """
    _check_one_each(prediction)
    if isinstance(by, str):
        name = checked_name(prediction, by)
        if isinstance(prediction, Prediction) and by == "confidence":
            found = 1 - prediction.confidence
        else:
            found = getattr(prediction, by)
    else:
        name = "the uncertainty"
        found = np.asarray(by, dtype=np.float64)
    return finite_numbers(name, found, len(prediction))


def checked_name(prediction: Prediction | RegressionPrediction, by: str) -> str:
    """Return the name of an uncertainty after checking that the prediction has it.

    Raises:
        ValueError: the prediction has no uncertainty of that name.
    """
    if isinstance(prediction, RegressionPrediction) and by == "confidence":
        raise ValueError(
            "by='confidence' is the probability of a class, which predicted numbers do not have; "
            "take by='total', their variance"
        )
    return one_of("by", by, score_names(prediction))


def score_names(prediction: Prediction | RegressionPrediction) -> tuple[str, ...]:
    """Return the names of the uncertainties that a prediction has."""
    return BOTH if isinstance(prediction, RegressionPrediction) else UNCERTAINTIES


def one_number_each(prediction: RegressionPrediction) -> ExampleScores:
    """Return the predicted means of a prediction with one number for each example.

    Raises:
        ValueError: it has several numbers for each example.
    """
    if prediction.mean.ndim != 1:
        raise ValueError(
            "the prediction must have one number for each example, got the shape "
            f"{list(prediction.mean.shape)}; use one target at a time"
        )
    mean: ExampleScores = prediction.mean
    return mean


def _check_one_each(prediction: Prediction | RegressionPrediction) -> None:
    if isinstance(prediction, RegressionPrediction):
        one_number_each(prediction)
    else:
        class_probs(prediction)


def finite_numbers(name: str, values: Any, examples: int) -> ExampleScores:
    """Return finite numbers as float64, after checking that there is one for each example.

    Args:
        name: name of the values in error messages.
        values: numbers, ``[examples]`` or ``[examples, 1]``.
        examples: expected number of examples.

    Raises:
        ValueError: they have another shape or are not finite.
    """
    refuse_times(np.asarray(values), name)
    found = np.asarray(values, dtype=np.float64)
    if found.shape == (examples, 1):
        found = found[:, 0]
    if found.shape != (examples,):
        raise ValueError(
            f"{name} must have the shape [{examples}], one for each example, got "
            f"{list(found.shape)}"
        )
    if not np.isfinite(found).all():
        wrong = examples - int(np.isfinite(found).sum())
        raise ValueError(f"{name} must be finite, got {wrong} of {examples} that are not")
    return found


def name_of(by: Any) -> str:
    """Return the name of an uncertainty in figures and tables.

    Example:
        >>> name_of("epistemic"), name_of(np.zeros(3))
        ('epistemic', 'given')
    """
    return by if isinstance(by, str) else "given"


@dataclass(frozen=True)
class SortedExamples:
    """The examples sorted by uncertainty, the most certain first, with ties as one value.

    Attributes:
        uncertainty: the distinct uncertainties, ascending, ``[values]``.
        accepted: number of examples with at most that uncertainty, ``[values]``.
        losses: sum of the losses of those examples, ``[values]``.

    Example:
        >>> found = sort_by_uncertainty(np.array([0.3, 0.1, 0.3]), np.array([1.0, 0.0, 0.0]))
        >>> found.uncertainty.tolist(), found.accepted.tolist(), found.losses.tolist()
        ([0.1, 0.3], [1, 3], [0.0, 1.0])
    """

    uncertainty: Float[np.ndarray, "values"]
    accepted: Int[np.ndarray, "values"]
    losses: Float[np.ndarray, "values"]


def sort_by_uncertainty(uncertainty: ExampleScores, losses: ExampleScores) -> SortedExamples:
    """Return the examples in the order of their uncertainty.

    Args:
        uncertainty: higher where more uncertain, ``[examples]``.
        losses: losses of the examples, ``[examples]``.
    """
    order = np.argsort(uncertainty)
    ordered = uncertainty[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], len(ordered) > 0))
    return SortedExamples(ordered[ends], ends + 1, losses[order].cumsum()[ends])
