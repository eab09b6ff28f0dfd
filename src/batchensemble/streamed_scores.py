"""The scores of an ensemble on data of any size, in the memory of one block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from batchensemble.ensembles import Ensemble
from batchensemble.metrics import BINS, Scores, reliability, score
from batchensemble.prediction import predict
from batchensemble.predictions import AnyPrediction, Prediction, RegressionPrediction

ROOTS = ("rmse", "epistemic", "aleatoric", "member_rmses")


def score_blocks(model: Ensemble, blocks: Iterable[tuple[Any, Any]]) -> Scores:
    """Return the scores that :func:`batchensemble.evaluate` has for all blocks together.

    Most scores are means over the examples, or roots of means, and those of a block count as often
    as it has examples. The ECE comes from the sums in its bins, R² from those of the targets. So
    what is kept is a number a score and two a bin; sums in another order round in the last digits.

    Args:
        model: any ensemble.
        blocks: features and targets, such as 65,536 at a time.

    Raises:
        ValueError: there are no examples, or they do not fit the network.

    Example:
        >>> import torch
        >>> from batchensemble import Single
        >>> block = np.zeros((4, 2), np.float32), np.array([0, 1, 2, 0])
        >>> round(score_blocks(Single(torch.nn.Linear(2, 3)), [block, block])["disagreement"], 4)
        0.0
    """
    sums: _Sums | None = None
    for X, targets in blocks:
        prediction, targets = predict(model, X), np.asarray(targets)
        if sums is None:
            sums = _Numbers() if isinstance(prediction, RegressionPrediction) else _Labels()
        sums.add(prediction, targets)
    if sums is None or not sums.examples:
        raise ValueError("there must be at least one example to score, got none")
    return sums.scores()


class _Sums:
    """Scores that are means over the examples, added up."""

    def __init__(self) -> None:
        self.examples = 0
        self.sums: dict[str, Any] = {}

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Take a block in."""
        for name, value in self.means(score(prediction, targets)).items():
            self.sums[name] = self.sums.get(name, 0) + np.asarray(value) * len(targets)
        self.examples += len(targets)

    def means(self, scores: Scores) -> dict[str, Any]:
        """Return those of a block's scores that are means."""
        return dict(scores)

    def scores(self) -> Scores:
        """Return the scores of all blocks."""
        return Scores({name: (value / self.examples).tolist() for name, value in self.sums.items()})


class _Labels(_Sums):
    """Scores of classes: the ECE is of the sums in its bins."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = np.zeros((2, BINS))  # sums of the confidences and of the right ones

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Take a block in."""
        super().add(prediction, targets)
        if isinstance(prediction, Prediction):
            found = reliability(prediction, targets)
            means = np.nan_to_num([found.confidence, found.accuracy])  # an empty bin has none
            self.bins += means * found.counts

    def scores(self) -> Scores:
        """Return the scores of all blocks."""
        found = super().scores()
        if "ece" not in found:
            return found
        confidence, right = self.bins
        return Scores({**found, "ece": float(np.abs(right - confidence).sum() / self.examples)})


class _Numbers(_Sums):
    """Scores of numbers: some are roots of means, and R² is of the targets' variance."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 0.0  # near the mean, so that squares do not lose what differs
        self.moments = np.zeros(2)  # sums of the targets less that, and of their squares

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Take a block in."""
        if not self.examples:
            self.shift = float(targets.mean())
        super().add(prediction, targets)
        apart = targets.astype(np.float64) - self.shift
        self.moments += [apart.sum(), np.square(apart).sum()]

    def means(self, scores: Scores) -> dict[str, Any]:
        """Return the scores as means: squares of the roots, and R² later."""
        return {
            name: np.square(value) if name in ROOTS else value
            for name, value in scores.items()
            if name != "r2"
        }

    def scores(self) -> Scores:
        """Return the scores of all blocks, in their usual order."""
        found = dict(super().scores())
        first, second = self.moments / self.examples
        variance = second - first**2
        r2 = 1 - found["rmse"] / variance if variance > 0 else float("nan")
        for name in ROOTS:
            found[name] = np.sqrt(found[name]).tolist()
        return Scores({"rmse": found.pop("rmse"), "mae": found.pop("mae"), "r2": r2, **found})
