"""Prediction sets with a coverage guarantee: split conformal classification."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from batchensemble.core.arguments import between, one_of, whole_number
from batchensemble.decisions.conformal.quantile import conformal_quantile, least_examples, rank_of
from batchensemble.metrics.labels import Labels, checked_labels, class_probs, labels_among
from batchensemble.predictions import Prediction

SetMethod = Literal["lac", "aps", "raps"]
SET_METHODS = ("lac", "aps", "raps")
SET_BLOCK = 1 << 15  # rows at a time: their scores stay in the cache, and memory stays small
HELD_OUT, NEW = 1, 2  # random streams; (seed, 0) would be that of the seed itself

ClassScores = Float[np.ndarray, "examples classes"]


@dataclass(frozen=True)
class PredictionSets:
    """A set of classes for each example.

    Attributes:
        contains: ``[examples, classes]``, true for the classes in the set.
        confidence: nominal coverage, 0 to 1.

    Example:
        >>> sets = PredictionSets(np.array([[True, True, False], [False, False, False]]), 0.9)
        >>> sets.sizes.tolist(), sets.empty.tolist(), sets.coverage([1, 2]), sets.classes(0)
        ([2, 0], [False, True], 0.5, [0, 1])
    """

    contains: Bool[np.ndarray, "examples classes"]
    confidence: float

    def __len__(self) -> int:
        return len(self.contains)

    @property
    def sizes(self) -> Int[np.ndarray, "examples"]:
        """The number of classes in each set."""
        sizes: Int[np.ndarray, "examples"] = self.contains.sum(1)
        return sizes

    @property
    def mean_size(self) -> float:
        """The mean of :attr:`sizes`; NaN without examples."""
        return float(self.sizes.mean()) if len(self) else math.nan

    @property
    def empty(self) -> Bool[np.ndarray, "examples"]:
        """Which sets are empty."""
        return self.sizes == 0

    def classes(self, example: int) -> list[int]:
        """Return the classes in the set of one example."""
        found: list[int] = np.flatnonzero(self.contains[example]).tolist()
        return found

    def coverage(self, labels: Any) -> float:
        """Return the share of sets that contain the true class.

        Raises:
            ValueError: ``labels`` does not fit, or there are no examples.
        """
        return float(self._covered(labels)[1].mean())

    def coverage_by_class(self, labels: Any) -> Float[np.ndarray, "classes"]:
        """Return the coverage of the examples of each class; NaN for a class without any."""
        labels, covered = self._covered(labels)
        classes = self.contains.shape[1]
        with np.errstate(invalid="ignore"):
            share: Float[np.ndarray, "classes"]
            share = np.bincount(labels, weights=covered, minlength=classes) / np.bincount(
                labels, minlength=classes
            )
        return share

    def _covered(self, labels: Any) -> tuple[Labels, Bool[np.ndarray, "examples"]]:
        labels = labels_among(labels, *self.contains.shape)
        return labels, self.contains[np.arange(len(labels)), labels]


@dataclass
class ConformalSets:
    """Prediction sets that contain the true class with a given probability, whatever the model.

    A threshold on the score of a class is fitted on held-out examples; a set contains the classes
    with a score of at most that. If held-out and new examples are exchangeable, a new set contains
    the true class with a probability of at least ``confidence``, on average over draws of both. The
    guarantee is not conditional on the kind of example, except on the class with ``by_class``.

    With ``p`` the ensemble's probabilities, sorted from the highest, ``r`` the rank of a class from
    1, and ``u`` a uniform random number of the example, the scores are:

    ========  ======================================  ============================================
    ``lac``   ``1 - p_r``                             the smallest sets on average; Sadinle et al.
                                                      2019, arXiv 1609.00451
    ``aps``   ``p_1 + ... + p_(r-1) + u p_r``         larger sets where it is more uncertain;
                                                      Romano et al. 2020, arXiv 2006.02544
    ``raps``  that ``+ penalty max(0, r - free)``     the same without long tails; Angelopoulos et
                                                      al. 2021, arXiv 2009.14193
    ========  ======================================  ============================================

    ``u`` makes the coverage exact. ``randomised=False`` uses 0 instead: the most probable class is
    then always in the set, and the coverage may be above the nominal one.

    Args:
        method: ``"lac"``, ``"aps"`` (the default) or ``"raps"``.
        confidence: nominal coverage, between 0 and 1, 0.9 by default.
        by_class: whether each class has its own threshold, which guarantees the coverage of each
            class (Mondrian; Vovk et al. 2005). Needs ``confidence / (1 - confidence)`` held-out
            examples of each class. False by default.
        randomised: whether ``aps`` and ``raps`` draw ``u``; true by default.
        allow_empty: whether a set may be empty, true by default; if not, it contains the most
            probable class instead.
        penalty: penalty of ``raps`` for each rank above ``free``, 0.01 by default.
        free: number of ranks without a penalty, 5 by default.
        seed: seed of ``u``, 0 by default. With a number, the same prediction gets the same sets; a
            NumPy generator advances from call to call: use one if examples come one by one.

    Attributes:
        thresholds_: ``[classes]``, the highest score in a set; infinite if there were too few
            held-out examples, so that the class is in every set.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> probs = rng.dirichlet([1, 1, 1], 2000)
        >>> labels = (probs.cumsum(1) < rng.random((2000, 1))).sum(1)
        >>> prediction = Prediction(probs[:, None])
        >>> conformal = ConformalSets("lac", confidence=0.9).fit(prediction, labels)
        >>> sets = conformal(prediction)
        >>> round(sets.coverage(labels), 2), bool(sets.mean_size < 3)
        (0.9, True)
    """

    method: SetMethod = "aps"
    confidence: float = 0.9
    by_class: bool = False
    randomised: bool = True
    allow_empty: bool = True
    penalty: float = 0.01
    free: int = 5
    seed: int | np.random.Generator = 0
    thresholds_: Float[np.ndarray, "classes"] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        one_of("method", self.method, SET_METHODS)
        self.confidence = between("confidence", self.confidence, 0, 1)
        whole_number("free", self.free, at_least=0)
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty must be a finite number of at least 0, got {self.penalty}")
        if not isinstance(self.seed, np.random.Generator):
            whole_number("seed", self.seed, at_least=0)

    def fit(self, prediction: Prediction, labels: Any) -> ConformalSets:
        """Fit the thresholds on held-out examples that the model was not trained on.

        Args:
            prediction: prediction on the held-out examples.
            labels: their true classes, ``[examples]``.

        Returns:
            The object itself.

        Raises:
            ValueError: the labels do not fit, there are no examples, or a probability is NaN.
        """
        labels = checked_labels(prediction, labels)
        scores = np.concatenate(
            [
                np.take_along_axis(part, labels[rows, None], 1)[:, 0]
                for rows, part in self._scores(prediction, HELD_OUT)
            ]
        )
        classes = prediction.probs.shape[1]
        if self.by_class:
            self.thresholds_ = _quantiles_by_class(scores, labels, classes, self.confidence)
        else:
            self.thresholds_ = np.full(classes, conformal_quantile(scores, self.confidence))
        self._warn_of_infinite(len(labels))
        return self

    def __call__(self, prediction: Prediction) -> PredictionSets:
        """Return the set of each example.

        Raises:
            RuntimeError: ``fit`` was not called.
            ValueError: the number of classes is not that of ``fit``, or a probability is NaN.
        """
        if self.thresholds_ is None:
            raise RuntimeError("the sets are not fitted yet: call fit with held-out examples")
        probs = class_probs(prediction)
        if probs.shape[1] != len(self.thresholds_):
            raise ValueError(
                f"the prediction must have {len(self.thresholds_)} classes as in fit, got "
                f"{probs.shape[1]}"
            )
        contains = np.empty(probs.shape, dtype=bool)
        for rows, scores in self._scores(prediction, NEW):
            np.less_equal(scores, self.thresholds_, out=contains[rows])
        if not self.allow_empty:
            empty = np.flatnonzero(~contains.any(1))
            contains[empty, prediction.labels[empty]] = True
        return PredictionSets(contains, self.confidence)

    def _scores(self, prediction: Prediction, stream: int) -> Iterator[tuple[slice, ClassScores]]:
        """Yield the scores of all classes, some rows at a time.

        Held-out and new examples use separate random streams: with the same numbers the new scores
        would not be exchangeable with the old ones.
        """
        probs = prediction.probs
        generator = (
            self.seed
            if isinstance(self.seed, np.random.Generator)
            else np.random.default_rng((self.seed, stream))
        )
        for start in range(0, len(probs), SET_BLOCK):
            rows = slice(start, start + SET_BLOCK)
            block = probs[rows]
            if not np.isfinite(block).all():
                raise ValueError(
                    "the probabilities must be finite, got NaN or infinity; check the model's "
                    "weights and inputs"
                )
            u = generator.random(len(block)) if self.randomised else np.zeros(len(block))
            yield rows, self._block(block, u)

    def _block(self, probs: ClassScores, u: Float[np.ndarray, "examples"]) -> ClassScores:
        if self.method == "lac":
            return 1 - probs
        # Stable: classes that tie keep their order, and short rows are sorted fastest so.
        order = np.argsort(-probs, axis=1, kind="stable")
        ranked = np.take_along_axis(probs, order, 1)
        scores = ranked.cumsum(1)
        scores -= ranked
        scores += u[:, None] * ranked
        if self.method == "raps":
            ranks = np.arange(1, probs.shape[1] + 1)
            scores += self.penalty * np.maximum(ranks - self.free, 0)
        found = np.empty_like(scores)
        np.put_along_axis(found, order, scores, 1)
        return found

    def _warn_of_infinite(self, examples: int) -> None:
        assert self.thresholds_ is not None
        endless = np.flatnonzero(np.isinf(self.thresholds_)).tolist()
        if not endless:
            return
        least = least_examples(self.confidence)
        if self.by_class:
            got = f"fewer than {least} of each of the classes {', '.join(map(str, endless))}"
            then = "these classes are in every set"
        else:
            got, then = str(examples), "every set contains every class"
        warnings.warn(
            f"a confidence of {self.confidence} needs at least {least} held-out examples"
            f"{' of each class' if self.by_class else ''}, got {got}: {then}",
            stacklevel=3,
        )


def _quantiles_by_class(
    scores: Float[np.ndarray, "examples"], labels: Labels, classes: int, confidence: float
) -> Float[np.ndarray, "classes"]:
    """Return the conformal quantile of the scores of each class, after one sort of all."""
    ordered = scores[np.lexsort((scores, labels))]
    counts = np.bincount(labels, minlength=classes)
    ranks = np.array([rank_of(int(count), confidence) for count in counts])
    at = np.cumsum(counts) - counts + ranks - 1
    return np.where(ranks <= counts, ordered[np.minimum(at, len(ordered) - 1)], np.inf)
