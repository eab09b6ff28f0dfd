"""The scores of an ensemble on data of any size, in the memory of one block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from batchensemble.ensembles import Ensemble
from batchensemble.metrics import BINS, Scores, reliability, score
from batchensemble.prediction import Prediction, predict


def score_blocks(model: Ensemble, blocks: Iterable[tuple[Any, Any]]) -> Scores:
    """Return the scores that :func:`batchensemble.evaluate` has for all blocks together.

    All scores but the ECE are means over the examples, and those of a block count as often as it
    has examples. The ECE comes from the sums in its bins. So what is kept is a number a score and
    two a bin; sums in another order round in the last digits.

    Args:
        model: any ensemble whose outputs are logits.
        blocks: features and class numbers, such as 65,536 at a time.

    Raises:
        ValueError: there are no examples, or they do not fit the network.

    Example:
        >>> import torch
        >>> from batchensemble import Single
        >>> block = np.zeros((4, 2), np.float32), np.array([0, 1, 2, 0])
        >>> round(score_blocks(Single(torch.nn.Linear(2, 3)), [block, block])["disagreement"], 4)
        0.0
    """
    examples = 0
    sums: dict[str, Any] = {}
    bins = np.zeros((2, BINS))  # sums of the confidences and of the right ones
    for X, labels in blocks:
        labels = np.asarray(labels)
        prediction = predict(model, X)
        if not isinstance(prediction, Prediction):
            raise ValueError(
                "scores are added up block by block for models of classes only, trained with "
                "loss='cross_entropy'; give be.evaluate the data of others as a whole"
            )
        for name, value in score(prediction, labels).items():
            sums[name] = sums.get(name, 0) + np.asarray(value) * len(labels)
        found = reliability(prediction, labels)
        means = np.nan_to_num([found.confidence, found.accuracy])  # an empty bin has none
        bins += means * found.counts
        examples += len(labels)
    if not examples:
        raise ValueError("there must be at least one example to score, got none")
    means_of_all = {name: (value / examples).tolist() for name, value in sums.items()}
    confidence, right = bins
    return Scores({**means_of_all, "ece": float(np.abs(right - confidence).sum() / examples)})
