"""Scores of a prediction: is it right, is it calibrated, do the members differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from batchensemble.ensembles import Ensemble
from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.reliability import reliability
from batchensemble.prediction import Prediction, predict_pairs
from batchensemble.sources import MEMORY_LIMIT


class Scores(Mapping[str, Any]):
    """Scores by name; all are means over the examples.

    ======================  ================================================================
    ``accuracy``            share of examples whose most probable class is the true one
    ``nll``                 negative log-likelihood of the mean probabilities, nats
    ``brier``               squared distance of the mean probabilities to the truth, summed
                            over the classes, 0 to 2
    ``ece``                 expected calibration error, :func:`reliability` with 15 bins
    ``mutual_information``  mean epistemic uncertainty, nats
    ``disagreement``        share of pairs of members with another most probable class
    ``member_accuracies``   the accuracy of each member alone
    ======================  ================================================================
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Scores({self._values})"


def evaluate(
    model: Ensemble,
    data: Any,
    *,
    target: str | None = None,
    class_names: Sequence[str] = (),
    memory_limit: int = MEMORY_LIMIT,
) -> Scores:
    """Return the scores of an ensemble on labelled data.

    Args:
        model: any ensemble whose outputs are logits.
        data: inputs and targets in any form that :func:`batchensemble.fit` takes.
        target: the column or key of the targets.
        class_names: the classes in the order of their numbers, where the targets are text:
            ``history.class_names`` of the training. By default those of ``data``, sorted.
        memory_limit: bytes; larger files are streamed.

    Raises:
        TypeError: the data are of the wrong type.
        ValueError: they are empty, not finite, or do not fit the network.

    Example:
        >>> import torch
        >>> from batchensemble import Single
        >>> scores = evaluate(Single(torch.nn.Linear(2, 3)), (np.zeros((4, 2)), [0, 1, 2, 0]))
        >>> scores["disagreement"]
        0.0
    """
    return score(
        *predict_pairs(
            model, data, target=target, class_names=class_names, memory_limit=memory_limit
        )
    )


def score(prediction: Prediction, labels: Labels) -> Scores:
    """Return the scores of a prediction against the true classes.

    Args:
        prediction: of any ensemble.
        labels: the true class numbers, ``[examples]``.

    Raises:
        ValueError: lengths differ, or a label is not among the classes.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> score(sure, np.array([0, 1]))["ece"]
        0.25
    """
    labels = checked_labels(prediction, labels)
    classes = np.arange(prediction.probs.shape[1])
    by_member = prediction.member_probs.argmax(-1)
    return Scores(
        {
            "accuracy": float(accuracy_score(labels, prediction.labels)),
            "nll": float(log_loss(labels, prediction.probs, labels=classes)),
            "brier": float(
                brier_score_loss(labels, prediction.probs, labels=classes, scale_by_half=False)
            ),
            "ece": reliability(prediction, labels).ece,
            "mutual_information": float(prediction.epistemic.mean()),
            "disagreement": disagreement(prediction),
            "member_accuracies": [float(accuracy_score(labels, own)) for own in by_member.T],
        }
    )


def disagreement(prediction: Prediction) -> float:
    """Return the share of pairs of members whose most probable classes differ; 0 for one member.

    Example:
        >>> disagreement(Prediction(np.array([[[1.0, 0], [1, 0], [0, 1]]])))
        0.6666666666666667
    """
    members, classes = prediction.member_probs.shape[1:]
    if members == 1:
        return 0.0
    top = prediction.member_probs.argmax(-1)
    votes = np.stack([(top == number).sum(1) for number in range(classes)])
    agreeing = (votes * (votes - 1)).sum(0) / (members * (members - 1))
    return float(1 - agreeing.mean())
