"""How well an uncertainty detects errors and out-of-distribution inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import auc

from batchensemble.decisions.uncertainty_score import (
    UNCERTAINTIES,
    ExampleScores,
    finite_numbers,
    score_names,
    sort_by_uncertainty,
    uncertainty_score,
)
from batchensemble.metrics.labels import checked_labels
from batchensemble.predictions import Prediction, RegressionPrediction

TRUE_POSITIVES = 0.95


def _no_points() -> Float[np.ndarray, "0"]:
    return np.empty(0)


@dataclass(frozen=True)
class Detection:
    """How well an uncertainty detects positive examples: errors, or inputs from outside.

    ============  ====================================================================  ======
    measure       meaning                                                               chance
    ============  ====================================================================  ======
    ``auroc``     probability that a positive example is more uncertain than a          0.5
                  negative one, ties count half; area under the ROC curve
    ``aupr``      average precision of detecting positives, most uncertain first        their
                                                                                        share
    ``aupr_in``   average precision of detecting negatives, most certain first          their
                                                                                        share
    ``fpr95``     share of positives that pass a threshold which at least 95 % of the   0.95
                  negatives pass
    ============  ====================================================================  ======

    All are from 0 to 1, and NaN where ``reason`` says why. The measures are those of Hendrycks and
    Gimpel 2017 (arXiv 1610.02136) and of Liang et al. 2018 (arXiv 1706.02690).

    Attributes:
        by: name of the uncertainty.
        found: number of positive examples.
        others: number of negative examples.
        auroc, aupr, aupr_in, fpr95: the measures above.
        reason: why the measures are NaN; empty otherwise.
        false_alarms, hits: the ROC curve: false positive and true positive rates at each value of
            the uncertainty, ``[points]``.
    """

    by: str
    found: int
    others: int
    auroc: float = math.nan
    aupr: float = math.nan
    aupr_in: float = math.nan
    fpr95: float = math.nan
    reason: str = ""
    false_alarms: Float[np.ndarray, "points"] = field(
        default_factory=_no_points, repr=False, compare=False
    )
    hits: Float[np.ndarray, "points"] = field(default_factory=_no_points, repr=False, compare=False)

    @classmethod
    def of(cls, uncertainty: Any, to_find: Any, by: str = "given") -> Detection:
        """Return how well any uncertainty detects any examples.

        Args:
            uncertainty: higher where more uncertain, ``[examples]``.
            to_find: whether each example is positive, boolean, ``[examples]``.
            by: name of the uncertainty, ``"given"`` by default.

        Raises:
            ValueError: the shapes differ, or an uncertainty is not finite.

        Example:
            >>> found = Detection.of([0.1, 0.4, 0.3, 0.8], [False, False, True, True])
            >>> found.auroc, round(found.aupr, 2), found.fpr95
            (0.75, 0.83, 0.5)
        """
        sought = np.asarray(to_find, dtype=bool)
        values = finite_numbers("the uncertainty", uncertainty, np.size(to_find))
        found, others = int(sought.sum()), int((~sought).sum())
        if not found or not others:
            reason = f"there are {found} positive and {others} negative examples"
            return cls(by, found, others, reason=reason)
        return cls(by, found, others, **_measures(values, sought))


def detect_errors(
    prediction: Prediction, labels: Any, by: str | Sequence[str] = UNCERTAINTIES
) -> dict[str, Detection]:
    """Return how well each uncertainty detects wrong predictions.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true classes, ``[examples]``.
        by: one or several names of uncertainties, all four by default, see
            :func:`batchensemble.decisions.uncertainty_score.uncertainty_score`.

    Raises:
        ValueError: ``labels`` does not fit, ``by`` is unknown, or an uncertainty is NaN.

    Example:
        >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
        >>> prediction = Prediction(probs[:, None])
        >>> detect_errors(prediction, np.array([0, 0, 1, 1]))["total"].auroc
        1.0
        >>> detect_errors(prediction, np.array([0, 0, 0, 1]))["total"].reason
        'there are 0 positive and 4 negative examples'
    """
    wrong = prediction.labels != checked_labels(prediction, labels)
    return {
        name: Detection.of(uncertainty_score(prediction, name), wrong, name) for name in _names(by)
    }


def detect_shift(
    inside: Prediction | RegressionPrediction,
    outside: Prediction | RegressionPrediction,
    by: str | Sequence[str] | None = None,
) -> dict[str, Detection]:
    """Return how well each uncertainty detects out-of-distribution examples.

    Args:
        inside: prediction on held-out examples of the training distribution.
        outside: prediction of the same model on examples of another distribution.
        by: one or several names of uncertainties, see
            :func:`batchensemble.decisions.uncertainty_score.uncertainty_score`; by default all
            that the predictions have.

    Raises:
        ValueError: there are no examples, ``by`` is unknown, or an uncertainty is NaN.

    Example:
        >>> members = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.9, 0.1], [0.1, 0.9]]])
        >>> found = detect_shift(Prediction(members[:1]), Prediction(members[1:]))
        >>> found["epistemic"].auroc, found["aleatoric"].auroc
        (1.0, 0.5)
    """
    for name, each in (("inside", inside), ("outside", outside)):
        if not len(each):
            raise ValueError(f"{name} must have at least one example, got none")
    by = score_names(inside) if by is None else by
    to_find = np.repeat([False, True], [len(inside), len(outside)])
    return {
        name: Detection.of(
            np.append(uncertainty_score(inside, name), uncertainty_score(outside, name)),
            to_find,
            name,
        )
        for name in _names(by)
    }


def _names(by: str | Sequence[str]) -> Sequence[str]:
    return [by] if isinstance(by, str) else by


def _measures(values: ExampleScores, sought: Bool[np.ndarray, "examples"]) -> dict[str, Any]:
    """Return the measures and the ROC curve, from counts at each value of the uncertainty."""
    ranking = sort_by_uncertainty(values, sought.astype(np.float64))
    found, others = ranking.losses[-1], ranking.accepted[-1] - ranking.losses[-1]
    # From the most certain on: how many of each have at most that uncertainty.
    missed, passed = ranking.losses, ranking.accepted - ranking.losses
    # From the most uncertain on: how many of each have at least that uncertainty.
    hits = found - np.append(0, missed)[::-1]
    alarms = others - np.append(0, passed)[::-1]
    enough = np.searchsorted(passed, TRUE_POSITIVES * others - 1e-9)
    return {
        "auroc": float(auc(alarms / others, hits / found)),
        "aupr": _average_precision(hits[1:], alarms[1:]),
        "aupr_in": _average_precision(passed, missed),
        "fpr95": float(missed[enough] / found),
        "false_alarms": alarms / others,
        "hits": hits / found,
    }


def _average_precision(
    right: Float[np.ndarray, "values"], wrong: Float[np.ndarray, "values"]
) -> float:
    """Return the mean precision, weighted by the recall gained at each value."""
    gained = np.diff(right, prepend=0)
    return float((gained * right / (right + wrong)).sum() / right[-1])
