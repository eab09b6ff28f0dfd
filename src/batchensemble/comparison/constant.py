"""The scores of a constant prediction on a comparison's held-out examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchensemble.comparison.results import Comparison
from batchensemble.metrics.bootstrap import spread
from batchensemble.metrics.confusion_matrix import named
from batchensemble.metrics.constant import MEAN_OF_TRAINING, ConstantNumber, constant_class
from batchensemble.predictions import RegressionPrediction


@dataclass(frozen=True)
class ConstantScores:
    """What a method must beat.

    Attributes:
        prediction: what is predicted for every example, in words.
        scores: its scores, by the keys of :func:`batchensemble.comparison.summary.quality`.
    """

    prediction: str
    scores: dict[str, float]


def constant_scores(comparison: Comparison) -> ConstantScores:
    """Return the scores of the constant prediction.

    For numbers that is the mean of the training targets, or without them that of the held-out ones;
    for classes the shares of the classes, and so the most frequent one.

    Args:
        comparison: a comparison with at least one finished run.
    """
    data = comparison.data
    targets = data.held_out[1]
    if data.task == "classification":
        examples = np.bincount(targets, minlength=data.classes)
        found = constant_class(examples)
        most = named(data.classes, data.class_names)[int(examples.argmax())]
        return ConstantScores(f"always {most!r}", _without_prefix(found))
    own = {
        key: spread([run.scores[key] for run in comparison.runs])[0]
        for key in comparison.runs[0].scores
        if key.startswith("constant_") and all(key in run.scores for run in comparison.runs)
    }
    training = data.train[1]
    if own and not len(training):
        return ConstantScores(comparison.runs[0].scores.constant, _without_prefix(own))
    constant = ConstantNumber.of_rows(training if len(training) else targets)
    prediction = comparison.runs[0].prediction
    assert isinstance(prediction, RegressionPrediction)
    return ConstantScores(
        MEAN_OF_TRAINING if len(training) else constant.source,
        _without_prefix(constant.scores(targets, prediction.has_density)),
    )


def _without_prefix(scores: dict[str, float]) -> dict[str, float]:
    return {key.removeprefix("constant_"): value for key, value in scores.items()}
