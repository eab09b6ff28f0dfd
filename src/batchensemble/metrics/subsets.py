"""The score of any of an ensemble's members together, from one pass over the data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from batchensemble.core.arguments import one_of
from batchensemble.core.chunks import row_blocks
from batchensemble.metrics.labels import checked_labels
from batchensemble.metrics.losses_by_example import losses_by_example, negative_log
from batchensemble.metrics.multilabel import known_labels
from batchensemble.metrics.regression import checked_numbers, crps
from batchensemble.metrics.scores import entries
from batchensemble.predictions import (
    AnyPrediction,
    MultiLabelPrediction,
    Normals,
    Points,
    Prediction,
    Quantiles,
)
from batchensemble.predictions.from_outputs import from_arrays, to_arrays

EntryLosses = Float[np.ndarray, "entries"]
LossFunction = Callable[[Any, np.ndarray], EntryLosses]


class SubsetScore(ABC):
    """A score of any of the members together, of which less is better.

    An entry is an example, or a token, pixel, target or label of it that is known.

    Args:
        losses: function from a prediction and targets to the loss of each entry, ``[entries]``.
        members: number of members of the predictions.
    """

    def __init__(self, losses: LossFunction, members: int) -> None:
        self.losses = losses
        self.members = members
        self.entries = 0
        self.finite = np.ones(members, bool)  # of which members all outputs are

    def add(self, prediction: AnyPrediction, targets: np.ndarray) -> None:
        """Add a batch.

        Args:
            prediction: a prediction of all members.
            targets: its targets, of which at least one is known.
        """
        for each in to_arrays(prediction).values():
            if each.ndim > 1:  # not the levels of quantiles
                others = tuple(axis for axis in range(each.ndim) if axis != 1)
                self.finite &= np.isfinite(each).all(others)
        with np.errstate(all="ignore"):  # members whose outputs are not finite
            self.entries += self._add(prediction, targets)

    @abstractmethod
    def _add(self, prediction: AnyPrediction, targets: np.ndarray) -> int:
        """Add a batch and return its number of entries."""

    @abstractmethod
    def of(self, members: Sequence[int]) -> float:
        """Return the mean loss of these members' prediction, at least one of them."""


class _OfMixtures(SubsetScore):
    """The NLL: the density of members together is the mean of theirs, so each entry's is kept."""

    def __init__(self, losses: LossFunction, members: int) -> None:
        super().__init__(losses, members)
        self.batches: list[np.ndarray] = []

    def _add(self, prediction: AnyPrediction, targets: np.ndarray) -> int:
        each = [self.losses(only(prediction, [m]), targets) for m in range(self.members)]
        self.batches.append(-np.stack(each))
        return len(each[0])

    def of(self, members: Sequence[int]) -> float:
        """Return the NLL, nats."""
        chosen = list(members)  # NumPy reads a tuple as one index of several axes
        if len(self.batches) > 1:
            self.batches = [np.concatenate(self.batches, 1)]
        (logs,) = self.batches
        total = 0.0
        for block in row_blocks(self.entries, len(members)):
            total += float(logsumexp(logs[chosen, block], axis=0).sum())
        return math.log(len(members)) - total / self.entries


class _OfPairs(SubsetScore):
    """Scores that are quadratic in the members' weights, known from single members and pairs.

    With k members, the loss is the mean over all k² pairs of Q, where Q of a member with itself is
    its own loss, and that of two of them follows from the loss of both together.
    """

    def __init__(self, losses: LossFunction, members: int) -> None:
        super().__init__(losses, members)
        self.sums = np.zeros((members, members))

    def _add(self, prediction: AnyPrediction, targets: np.ndarray) -> int:
        for first in range(self.members):
            for second in range(first, self.members):
                both = [first] if first == second else [first, second]
                found = self.losses(only(prediction, both), targets)
                self.sums[first, second] += found.sum()
        return len(found)

    def of(self, members: Sequence[int]) -> float:
        """Return the mean loss."""
        chosen = list(members)
        sums = np.triu(self.sums) + np.triu(self.sums, 1).T
        own = np.diag(sums)[chosen]
        pairs = sums[np.ix_(chosen, chosen)]
        quadratic = 2 * pairs - (own[:, None] + own) / 2
        np.fill_diagonal(quadratic, own)
        return float(quadratic.mean() / self.entries)


class _OfMeans(SubsetScore):
    """Other scores of the members' mean, for which that of each entry is kept."""

    def __init__(self, losses: LossFunction, members: int) -> None:
        super().__init__(losses, members)
        self.batches: list[tuple[AnyPrediction, np.ndarray]] = []

    def _add(self, prediction: AnyPrediction, targets: np.ndarray) -> int:
        if isinstance(prediction, Normals):
            prediction = Points(prediction.means)
        self.batches.append((prediction, targets))
        return len(self.losses(only(prediction, [0]), targets))

    def of(self, members: Sequence[int]) -> float:
        """Return the mean loss."""
        chosen = list(members)
        total = 0.0
        for prediction, targets in self.batches:
            mean = _map_members(prediction, lambda each: each[:, chosen].mean(1, keepdims=True))
            total += float(self.losses(mean, targets).sum())
        return total / self.entries


def only(prediction: AnyPrediction, members: Sequence[int]) -> Any:
    """Return the prediction of these members.

    Example:
        >>> only(Points(np.array([[1.0, 3.0]])), [1]).mean.tolist()
        [3.0]
    """
    return _map_members(prediction, lambda each: each[:, list(members)])


def _map_members(prediction: AnyPrediction, function: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Apply a function to all arrays of a prediction with an axis of members."""
    arrays = to_arrays(prediction)
    return from_arrays(
        {name: function(each) if each.ndim > 1 else each for name, each in arrays.items()}
    )


def _known(losses: Callable[[Any, np.ndarray], np.ndarray]) -> LossFunction:
    """Return the losses of the known numbers only."""

    def of_known(prediction: Any, targets: np.ndarray) -> EntryLosses:
        targets = checked_numbers(prediction, targets)
        known = ~np.isnan(targets)
        found: EntryLosses = losses(prediction, np.where(known, targets, 0.0))[known]
        return found

    return of_known


def _label_losses(losses: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> LossFunction:
    """Return losses of the known labels, from their probabilities and the truth, 0 or 1."""

    def of_known(prediction: Any, targets: np.ndarray) -> EntryLosses:
        targets, known = known_labels(prediction, targets)
        return losses(prediction.probs[known], targets[known])

    return of_known


_NUMBERS: dict[str, tuple[type[SubsetScore], LossFunction]] = {
    "rmse": (_OfPairs, _known(lambda prediction, y: (prediction.mean - y) ** 2)),
    "mae": (_OfMeans, _known(lambda prediction, y: np.abs(prediction.mean - y))),
}
# The first is the default.
SUBSET_SCORES: Mapping[type, Mapping[str, tuple[type[SubsetScore], LossFunction]]] = {
    Prediction: {
        "nll": (_OfMixtures, lambda prediction, y: losses_by_example(prediction, y, "nll")),
        "brier": (_OfPairs, lambda prediction, y: losses_by_example(prediction, y, "brier")),
        "accuracy": (_OfMeans, lambda prediction, y: losses_by_example(prediction, y, "error")),
    },
    MultiLabelPrediction: {
        "nll": (_OfMixtures, _label_losses(lambda p, y: negative_log(np.where(y > 0.5, p, 1 - p)))),
        "brier": (_OfPairs, _label_losses(lambda p, y: (p - y) ** 2)),
        "accuracy": (_OfMeans, _label_losses(lambda p, y: 1.0 * ((p > 0.5) != (y > 0.5)))),
    },
    Normals: {
        "nll": (_OfMixtures, _known(lambda prediction, y: -prediction.log_density(y))),
        "crps": (_OfPairs, _known(crps)),
        **_NUMBERS,
    },
    Points: {**_NUMBERS, "crps": (_OfPairs, _known(crps))},
    Quantiles: {
        "crps": (_OfMeans, _known(crps)),
        "pinball": (_OfMeans, _known(lambda prediction, y: crps(prediction, y) / 2)),
        **_NUMBERS,
    },
}


# How the mean loss becomes the score, where it is not the score already.
_FINISH: dict[str, Callable[[float], float]] = {
    "rmse": lambda loss: math.sqrt(max(loss, 0.0)),
    "accuracy": lambda loss: 1 - loss,
}


def subset_score(
    prediction: AnyPrediction, name: str | None = None
) -> tuple[str, SubsetScore, Callable[[float], float]]:
    """Return the name of a score, an empty collector for it, and what makes its loss the score.

    Args:
        prediction: a prediction of all members.
        name: name of the score; the default is ``"nll"``, or ``"crps"`` for quantiles, or
            ``"rmse"`` for networks that predict one number.

    Raises:
        TypeError: the prediction is not of classes, labels or numbers.
        ValueError: there is no such score for this kind of prediction.

    Example:
        >>> one = Prediction(np.array([[[0.5, 0.5], [0.9, 0.1]]]))
        >>> name, collector, finish = subset_score(one)
        >>> collector.add(one, np.array([0]))
        >>> name, round(finish(collector.of([1])), 4)
        ('nll', 0.1054)
    """
    kind_of_prediction = type(prediction)
    if kind_of_prediction not in SUBSET_SCORES:
        raise TypeError(f"there is no score of some members of a {kind_of_prediction.__name__}")
    known = SUBSET_SCORES[kind_of_prediction]
    name = next(iter(known)) if name is None else one_of("score", name, known)
    kind, losses = known[name]
    return name, kind(losses, prediction.members), _FINISH.get(name, float)


def countable(
    prediction: AnyPrediction, targets: np.ndarray, ignore_index: int | None
) -> tuple[AnyPrediction, np.ndarray] | None:
    """Return a prediction and targets as entries that count, ``None`` where none does.

    Args:
        prediction: a prediction of all members.
        targets: its targets.
        ignore_index: class number of entries to ignore, if there is one.
    """
    if isinstance(prediction, Prediction):
        if ignore_index is not None and (targets == ignore_index).all():
            return None
        prediction, targets = entries(prediction, targets, ignore_index)
        return prediction, checked_labels(prediction, targets)
    return None if np.isnan(targets).all() else (prediction, targets)
