"""Scores of multi-label predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import xlogy

from batchensemble.metrics.values import Scores
from batchensemble.predictions import MultiLabelPrediction


def score_labels(prediction: MultiLabelPrediction, targets: Any) -> Scores:
    """Return the scores of a multi-label prediction, means over all known labels.

    ======================  ================================================================
    ``accuracy``            share of correct labels
    ``exact_match``         share of examples with all known labels correct
    ``nll``                 negative log-likelihood of the mean probability of a label, nats
    ``brier``               squared distance of the mean probability to the label, 0 to 1
    ``mutual_information``  mean epistemic uncertainty of a label, nats
    ``disagreement``        share of pairs of members that differ in a label
    ``member_accuracies``   the accuracy of each member
    ======================  ================================================================

    Args:
        prediction: the prediction of any ensemble.
        targets: 0 or 1 in the shape of ``prediction.probs``; NaN for unknown labels.

    Raises:
        ValueError: the targets have another shape, none is known, or one is not 0 or 1.

    Example:
        >>> one = MultiLabelPrediction(np.array([[[0.5, 0.9]]]))
        >>> score_labels(one, [[np.nan, 1.0]])["accuracy"]
        1.0
    """
    targets, known = known_labels(prediction, targets)
    y, probs = targets[known], prediction.probs[known]
    right = (prediction.probs > 0.5) == (targets > 0.5)
    votes = np.moveaxis(prediction.member_probs > 0.5, 1, 0)
    tiny = np.finfo(np.float64).tiny
    nll = -xlogy(y, np.maximum(probs, tiny)) - xlogy(1 - y, np.maximum(1 - probs, tiny))
    axes = tuple(range(1, targets.ndim))
    members, yes = len(votes), votes.sum(0)[known]
    pairs = members * (members - 1)
    return Scores(
        {
            "accuracy": float(right[known].mean()),
            "exact_match": float((right | ~known).all(axes)[known.any(axes)].mean()),
            "nll": float(nll.mean()),
            "brier": float(np.square(probs - y).mean()),
            "mutual_information": float(prediction.epistemic[known].mean()),
            "disagreement": float((2 * yes * (members - yes)).mean() / pairs) if pairs else 0.0,
            "member_accuracies": [float(((each[known]) == (y > 0.5)).mean()) for each in votes],
        }
    )


def known_labels(prediction: MultiLabelPrediction, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the true labels in the shape of the prediction, and which of them are known.

    Args:
        prediction: the prediction of any ensemble.
        targets: 0 or 1 in the shape of ``prediction.probs``; NaN for unknown labels.

    Raises:
        ValueError: the targets have another shape, none is known, or one is not 0 or 1.
    """
    targets = np.asarray(targets, np.float64)
    if targets.shape == (*prediction.probs.shape, 1):
        targets = targets[..., 0]
    if targets.shape != prediction.probs.shape:
        raise ValueError(
            f"targets must have the shape {list(prediction.probs.shape)} of the prediction, got "
            f"{list(targets.shape)}"
        )
    known = ~np.isnan(targets)
    if not known.any():
        raise ValueError("there must be at least one known label to score, got none")
    y = targets[known]
    if ((y != 0) & (y != 1)).any():
        wrong = y[(y != 0) & (y != 1)][0]
        raise ValueError(f"labels must be 0 or 1 (NaN where not known) to be scored, got {wrong:g}")
    return targets, known
