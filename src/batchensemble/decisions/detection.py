"""How well an uncertainty finds errors, and inputs unlike those of the training."""

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
    PerExample,
    finite_numbers,
    names_of,
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
    """How well the doubtful examples are those to be found: errors, or inputs from elsewhere.

    ============  ====================================================================  ======
    ``auroc``     probability that one to be found has more doubt than another one,     chance
                  ties count half; area under ``hits`` against ``false_alarms``         is 0.5
    ``aupr``      average precision of finding them, most doubt first                   their
                                                                                        share
    ``aupr_in``   average precision of finding the others, least doubt first            the
                                                                                        rest
    ``fpr95``     share of those to be found that pass, where the threshold lets at     0.95
                  least 95 % of the others pass
    ============  ====================================================================  ======

    All are from 0 to 1, and NaN where ``reason`` says why. The measures are those of Hendrycks and
    Gimpel 2017 (arXiv 1610.02136) and of Liang et al. 2018 (arXiv 1706.02690).

    Attributes:
        by: the uncertainty.
        found: how many there are to be found.
        others: how many there are not.
        auroc, aupr, aupr_in, fpr95: see above.
        reason: why they are NaN, empty otherwise.
        false_alarms, hits: the curve: shares of the others and of those to be found that have at
            least so much doubt, one point a value, ``[points]``.
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
        """Return how well any numbers find any examples.

        Args:
            uncertainty: higher where less sure, ``[examples]``.
            to_find: which examples are to be found, boolean, ``[examples]``.
            by: what to call the uncertainty.

        Raises:
            ValueError: shapes differ, or an uncertainty is not finite.

        Example:
            >>> found = Detection.of([0.1, 0.4, 0.3, 0.8], [False, False, True, True])
            >>> found.auroc, round(found.aupr, 2), found.fpr95
            (0.75, 0.83, 0.5)
        """
        sought = np.asarray(to_find, dtype=bool)
        values = finite_numbers("the uncertainty", uncertainty, np.size(to_find))
        found, others = int(sought.sum()), int((~sought).sum())
        if not found or not others:
            reason = f"there are {found} examples to be found and {others} others"
            return cls(by, found, others, reason=reason)
        return cls(by, found, others, **_measures(values, sought))


def detect_errors(
    prediction: Prediction, labels: Any, by: str | Sequence[str] = UNCERTAINTIES
) -> dict[str, Detection]:
    """Return how well each uncertainty finds the examples whose predicted class is wrong.

    Args:
        prediction: of any ensemble.
        labels: the true classes, ``[examples]``.
        by: which uncertainties, one or several, see
            :func:`batchensemble.decisions.uncertainty_score.uncertainty_score`.

    Raises:
        ValueError: ``labels`` does not fit, ``by`` is unknown, or an uncertainty is NaN.

    Example:
        >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
        >>> prediction = Prediction(probs[:, None])
        >>> detect_errors(prediction, np.array([0, 0, 1, 1]))["total"].auroc
        1.0
        >>> detect_errors(prediction, np.array([0, 0, 0, 1]))["total"].reason
        'there are 0 examples to be found and 4 others'
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
    """Return how well each uncertainty finds the examples from outside.

    Args:
        inside: predictions of held-out examples of the kind that the model was trained on.
        outside: predictions of others, by the same model.
        by: which uncertainties, one or several, see
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
    by = names_of(inside) if by is None else by
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


def _measures(values: PerExample, sought: Bool[np.ndarray, "examples"]) -> dict[str, Any]:
    """Count the sought and the others at each value of doubt, after one sort, and measure."""
    ranking = sort_by_uncertainty(values, sought.astype(np.float64))
    found, others = ranking.losses[-1], ranking.accepted[-1] - ranking.losses[-1]
    # From the least doubt on: how many of each have at most so much.
    missed, passed = ranking.losses, ranking.accepted - ranking.losses
    # From the most doubt on: how many of each have at least so much.
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
    """Return the mean precision over the recalls that are gained at each value."""
    gained = np.diff(right, prepend=0)
    return float((gained * right / (right + wrong)).sum() / right[-1])
