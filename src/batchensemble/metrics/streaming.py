"""Scores of an ensemble on data of any size, in the memory of one block."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from batchensemble.ensembles import Ensemble
from batchensemble.metrics import BINS, ConstantNumber, Scores, one_class, reliability, score
from batchensemble.metrics.confusion_matrix import (
    MOST_CLASSES,
    Confusion,
    balanced_accuracy,
    pair_counts,
)
from batchensemble.metrics.constant import MEAN_OF_ROWS, SHARES_OF_ROWS, constant_class
from batchensemble.metrics.discrimination import MOST_PROBABILITIES, RANKED, Ranked
from batchensemble.metrics.regression import no_variance
from batchensemble.metrics.scores import entries, name_classes
from batchensemble.predictions import (
    AnyPrediction,
    MultiLabelPrediction,
    Prediction,
    RegressionPrediction,
)
from batchensemble.predictions.predict import model_loss, predict

ROOTS = ("rmse", "epistemic", "aleatoric", "member_rmses", "constant_rmse")
MOST_TARGETS = 2**23  # numbers kept for the errors of their mean: 64 MB


def score_blocks(model: Ensemble, blocks: Iterable[tuple[Any, Any]]) -> Scores:
    """Return the scores that :func:`batchensemble.evaluate` returns for all blocks together.

    Most scores are means over the examples, or roots of means; those of a block are weighted by its
    number of examples with a known target. The ECE is computed from the sums in its bins, R² from
    those of the targets, the balanced accuracy from the confusion matrix. So little more than a
    number for each score is stored; the last digits may differ, since the sums are in another
    order.

    Some scores need all rows. For ``auc`` and ``average_precision`` the probabilities are kept in
    float32, of two classes those of one: up to 2²⁴ numbers, 64 MB, beyond which they are NaN. The
    errors of the mean of all rows, which is compared with where that of the training is not known,
    need the targets: up to 2²³, beyond which the constant's scores are NaN.

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
    loss = model_loss(model)
    ignored = getattr(loss, "ignore_index", None)
    named: set[int | None] = set()  # the one class of each block, where there is one
    for X, targets in blocks:
        prediction, targets = predict(model, X), np.asarray(targets)
        if sums is None:
            kind = _KINDS.get(type(prediction))
            sums = kind() if kind else _Numbers(ConstantNumber.of_training(loss))
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
    scores = sums.scores()
    name_classes(scores, model.class_names)
    scores.one_class = named.pop() if len(named) == 1 else None
    return scores


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
            found = self.scored(prediction, targets)
        for name, value in self.means(found).items():
            self.sums[name] = self.sums.get(name, 0) + np.asarray(value) * known
        self.examples += known

    def scored(self, prediction: AnyPrediction, targets: np.ndarray) -> Scores:
        """Return the scores of a block."""
        return score(prediction, targets)

    def means(self, scores: Scores) -> dict[str, Any]:
        """Return the scores of a block that are means."""
        return scores.now()

    def averages(self) -> dict[str, Any]:
        """Return the scores that are means."""
        return {name: (value / self.examples).tolist() for name, value in self.sums.items()}

    def scores(self) -> Scores:
        """Return the scores of all blocks."""
        return Scores(self.averages())


class _Classes(_Sums):
    """Scores of classes: the ECE from the sums in its bins, others from counts or all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = np.zeros((2, BINS))  # sums of the confidences and of the right ones
        self.counts: Any = 0  # of each class, and of those predicted right
        self.pairs: Any = 0  # [true, predicted]
        self.probs: list[np.ndarray] | None = []
        self.labels: list[np.ndarray] = []
        self.kept = 0

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Add a block."""
        assert isinstance(prediction, Prediction)
        super().add(prediction, targets)
        found = reliability(prediction, targets)
        means = np.nan_to_num([found.confidence, found.accuracy])  # an empty bin has none
        self.bins += means * found.counts
        classes = prediction.probs.shape[1]
        right = targets[prediction.labels == targets]
        self.counts += np.stack([np.bincount(each, minlength=classes) for each in (targets, right)])
        if classes <= MOST_CLASSES:
            self.pairs += pair_counts(prediction, targets)
        if self.probs is not None:
            probs = prediction.probs[:, 1:] if classes == 2 else prediction.probs
            self.kept += probs.size
            self.probs.append(probs.astype(np.float32))
            self.labels.append(targets)
            if self.kept > MOST_PROBABILITIES:
                self.probs, self.labels = None, []

    def scores(self) -> Scores:
        """Return the scores of all blocks."""
        confidence, right = self.bins
        found = self.averages()
        examples, correct = self.counts
        labels = np.concatenate(self.labels) if self.labels else examples[:0]
        probs = None if self.probs is None else np.concatenate(self.probs)
        return Scores(
            {
                "accuracy": found.pop("accuracy"),
                "balanced_accuracy": balanced_accuracy(correct, examples),
                **dict.fromkeys(RANKED, ...),
                **{name: each for name, each in found.items() if name != "balanced_accuracy"},
                "ece": float(np.abs(right - confidence).sum() / self.examples),
                **constant_class(examples),
            },
            confusion=Confusion(self.pairs) if len(examples) <= MOST_CLASSES else None,
            constant=SHARES_OF_ROWS,
            later=Ranked(probs, labels),
        )


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
        return Scores({**self.averages(), "exact_match": float(self.exact[0] / self.exact[1])})


class _Numbers(_Sums):
    """Scores of numbers: some are roots of means, and R² needs the targets' variance.

    Args:
        constant: the mean of the training; ``None`` compares with that of the rows.
    """

    def __init__(self, constant: ConstantNumber | None) -> None:
        super().__init__()
        self.constant = constant
        self.shift = 0.0  # near the mean, so that squares do not lose what differs
        self.moments = np.zeros(2)  # sums of the targets less that, and of their squares
        self.lowest, self.highest = math.inf, -math.inf
        self.meant = math.nan
        self.density = False
        self.targets: list[np.ndarray] = []

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Add a block."""
        assert isinstance(prediction, RegressionPrediction)
        known = targets[~np.isnan(targets)].astype(np.float64)
        if not self.examples:
            self.shift = float(known.mean())
        super().add(prediction, targets)
        self.lowest = min(self.lowest, float(known.min()))
        self.highest = max(self.highest, float(known.max()))
        self.moments += [(known - self.shift).sum(), np.square(known - self.shift).sum()]
        self.density = prediction.has_density
        if self.constant is None and self.examples <= MOST_TARGETS:
            self.targets.append(targets.reshape(prediction.mean.shape))

    def scored(self, prediction: AnyPrediction, targets: np.ndarray) -> Scores:
        """Return the scores of a block."""
        return score(prediction, targets, constant=self.constant)

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
        found = {**self.averages(), "coverage_meant": self.meant}
        first, second = self.moments / self.examples
        same = no_variance(self.examples, self.lowest, self.highest)
        r2 = math.nan if same else float(1 - found["rmse"] / (second - first**2))
        for name in ROOTS:
            found[name] = np.sqrt(found[name]).tolist()
        source = self.constant.source if self.constant else MEAN_OF_ROWS
        if self.constant is None:
            found |= self._of_rows()
        scores = {"rmse": found.pop("rmse"), "mae": found.pop("mae"), "r2": r2, **found}
        return Scores(scores, constant=source)

    def _of_rows(self) -> dict[str, float]:
        """Return the scores of the mean of all rows."""
        if self.examples > MOST_TARGETS:
            return {name: math.nan for name in self.sums if name.startswith("constant_")}
        targets = np.concatenate(self.targets)
        return ConstantNumber.of_rows(targets).scores(targets, self.density)


_KINDS: dict[type, type[_Sums]] = {Prediction: _Classes, MultiLabelPrediction: _Labels}
