"""Scores of an ensemble on data of any size, in the memory of one block."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from batchensemble.ensembles import Ensemble
from batchensemble.metrics import BINS, Scores, one_class, reliability, score
from batchensemble.metrics.regression import no_variance
from batchensemble.metrics.scores import entries
from batchensemble.predictions import AnyPrediction, MultiLabelPrediction, Prediction
from batchensemble.predictions.predict import model_loss, predict

ROOTS = ("rmse", "epistemic", "aleatoric", "member_rmses")


def score_blocks(model: Ensemble, blocks: Iterable[tuple[Any, Any]]) -> Scores:
    """Return the scores that :func:`batchensemble.evaluate` returns for all blocks together.

    Most scores are means over the examples, or roots of means; those of a block are weighted by its
    number of examples with a known target. The ECE is computed from the sums in its bins, R² from
    those of the targets. So only a number for each score and two for each bin are stored; the last
    digits may differ, since the sums are in another order.

    Args:
        model: any ensemble.
        blocks: pairs of features and targets, such as 65,536 rows at a time.

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
    ignored = getattr(model_loss(model), "ignore_index", None)
    named: set[int | None] = set()  # the one class of each block, where there is one
    for X, targets in blocks:
        prediction, targets = predict(model, X), np.asarray(targets)
        if sums is None:
            sums = _KINDS.get(type(prediction), _Numbers)()
        if isinstance(prediction, Prediction):
            if (targets == ignored).all():
                continue  # nothing of this block counts
            prediction, targets = entries(prediction, targets, ignored)
        elif np.isnan(targets).all():
            continue
        sums.add(prediction, targets)
        named.add(one_class(prediction) if isinstance(prediction, Prediction) else None)
    if sums is None or not sums.examples:
        raise ValueError("there must be at least one example to score, got none")
    return Scores(sums.scores(), one_class=named.pop() if len(named) == 1 else None)


class _Sums:
    """Sums of scores that are means over the known targets."""

    def __init__(self) -> None:
        self.examples = 0
        self.sums: dict[str, Any] = {}

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Add a block."""
        known = int(np.count_nonzero(~np.isnan(targets)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="R² is NaN")  # of the block alone
            found = score(prediction, targets)
        for name, value in self.means(found).items():
            self.sums[name] = self.sums.get(name, 0) + np.asarray(value) * known
        self.examples += known

    def means(self, scores: Scores) -> dict[str, Any]:
        """Return the scores of a block that are means."""
        return dict(scores)

    def scores(self) -> Scores:
        """Return the scores of all blocks."""
        return Scores({name: (value / self.examples).tolist() for name, value in self.sums.items()})


class _Classes(_Sums):
    """Scores of classes: the ECE from the sums in its bins."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = np.zeros((2, BINS))  # sums of the confidences and of the right ones

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Add a block."""
        assert isinstance(prediction, Prediction)
        super().add(prediction, targets)
        found = reliability(prediction, targets)
        means = np.nan_to_num([found.confidence, found.accuracy])  # an empty bin has none
        self.bins += means * found.counts

    def scores(self) -> Scores:
        """Return the scores of all blocks."""
        confidence, right = self.bins
        ece = float(np.abs(right - confidence).sum() / self.examples)
        return Scores({**super().scores(), "ece": ece})


class _Labels(_Sums):
    """Scores of multi-label predictions: one of them counts examples, not labels."""

    def __init__(self) -> None:
        super().__init__()
        self.exact = np.zeros(2)  # how many examples are all right, and how many have a label

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Add a block."""
        super().add(prediction, targets)
        examples = int(np.count_nonzero((~np.isnan(targets)).reshape(len(targets), -1).any(1)))
        exact = score(prediction, targets)["exact_match"]
        self.exact += [exact * examples, examples]

    def scores(self) -> Scores:
        """Return the scores of all blocks."""
        return Scores({**super().scores(), "exact_match": float(self.exact[0] / self.exact[1])})


class _Numbers(_Sums):
    """Scores of numbers: some are roots of means, and R² needs the targets' variance."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 0.0  # near the mean, so that squares do not lose what differs
        self.moments = np.zeros(2)  # sums of the targets less that, and of their squares
        self.lowest, self.highest = math.inf, -math.inf
        self.meant = math.nan

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Add a block."""
        known = targets[~np.isnan(targets)].astype(np.float64)
        if not self.examples:
            self.shift = float(known.mean())
        super().add(prediction, targets)
        self.lowest = min(self.lowest, float(known.min()))
        self.highest = max(self.highest, float(known.max()))
        self.moments += [(known - self.shift).sum(), np.square(known - self.shift).sum()]

    def means(self, scores: Scores) -> dict[str, Any]:
        """Return the scores as means: squares of the roots, and R² later."""
        self.meant = scores["coverage_meant"]
        return {
            name: np.square(value) if name in ROOTS else value
            for name, value in scores.items()
            if name != "r2"
        }

    def scores(self) -> Scores:
        """Return the scores of all blocks, in their usual order."""
        found = {**super().scores(), "coverage_meant": self.meant}
        first, second = self.moments / self.examples
        same = no_variance(self.examples, self.lowest, self.highest)
        r2 = math.nan if same else float(1 - found["rmse"] / (second - first**2))
        for name in ROOTS:
            found[name] = np.sqrt(found[name]).tolist()
        return Scores({"rmse": found.pop("rmse"), "mae": found.pop("mae"), "r2": r2, **found})


_KINDS: dict[type, type[_Sums]] = {Prediction: _Classes, MultiLabelPrediction: _Labels}
