"""The scores of a prediction: accuracy, likelihood, calibration, disagreement of the members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.ensembles import Ensemble
from batchensemble.losses import Loss
from batchensemble.losses.targets import whole_labels
from batchensemble.metrics.calibration.reliability import reliability
from batchensemble.metrics.confusion_matrix import (
    MOST_CLASSES,
    Confusion,
    balanced_accuracy,
    pair_counts,
)
from batchensemble.metrics.constant import SHARES_OF_ROWS, ConstantNumber, constant_class
from batchensemble.metrics.discrimination import RANKED, Ranked
from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.losses_by_example import losses_by_example
from batchensemble.metrics.members.diversity import disagreement, one_class
from batchensemble.metrics.multilabel import score_labels
from batchensemble.metrics.regression import score_numbers
from batchensemble.metrics.values import Scores
from batchensemble.predictions import (
    AnyPrediction,
    MultiLabelPrediction,
    Prediction,
    RegressionPrediction,
)
from batchensemble.predictions.predict import model_loss, predict_pairs


def evaluate(
    model: Ensemble,
    data: Any,
    *,
    loss: str | Loss | None = None,
    target: str | None = None,
    class_names: Sequence[Any] = (),
    memory_limit: int = MEMORY_LIMIT,
) -> Scores:
    """Return the scores of an ensemble on data with targets, see :func:`score`.

    Args:
        model: any ensemble.
        data: inputs and targets in any form that :func:`batchensemble.fit` takes.
        loss: the loss that the outputs were trained with; by default the one of ``fit``, else the
            cross-entropy of logits.
        target: name of the column or key of the targets; by default that of the training.
        class_names: the classes in the order of their numbers, if the targets are text or numbers
            that are no class numbers; by default those of the training, else those of ``data``,
            sorted.
        memory_limit: size in bytes above which files are streamed.

    Raises:
        TypeError: the data have the wrong type, or the loss does not define a prediction.
        ValueError: the data are empty, not finite, or do not fit the network.

    Example:
        >>> import torch
        >>> from batchensemble import Single
        >>> scores = evaluate(Single(torch.nn.Linear(2, 3)), (np.zeros((4, 2)), [0, 1, 2, 0]))
        >>> scores["disagreement"]
        0.0
    """
    prediction, targets = predict_pairs(
        model, data, loss=loss, target=target, class_names=class_names, memory_limit=memory_limit
    )
    found = model_loss(model, loss)
    scores = score(
        prediction,
        targets,
        ignore_index=getattr(found, "ignore_index", None),
        constant=ConstantNumber.of_training(found),
    )
    name_classes(scores, class_names or model.class_names)
    return scores


def score(
    prediction: AnyPrediction,
    targets: Any,
    *,
    ignore_index: int | None = None,
    constant: ConstantNumber | None = None,
) -> Scores:
    """Return the scores of a prediction against the truth.

    For numbers see :func:`~batchensemble.metrics.score_numbers`, for multi-label predictions
    :func:`~batchensemble.metrics.score_labels`. For classes, as means over the examples, or over
    their tokens or pixels:

    ======================  ================================================================
    ``accuracy``            share of examples whose most probable class is the true one
    ``balanced_accuracy``   mean of that share over the classes that occur
    ``auc``                 area under the ROC curve of class 1; of more than two classes the mean
                            of each against the rest, :func:`roc_auc`
    ``average_precision``   the same of the curve of precision against recall,
                            :func:`average_precision`
    ``nll``                 negative log-likelihood of the ensemble's probabilities, nats
    ``brier``               squared distance of the ensemble's probabilities to the one-hot
                            label, summed over the classes, 0 to 2
    ``ece``                 expected calibration error, :func:`reliability` with 15 bins
    ``mutual_information``  mean epistemic uncertainty, nats
    ``disagreement``        share of pairs of members with different most probable classes
    ``member_accuracies``   the accuracy of each member
    ``constant_accuracy``   share of the most frequent class in these examples: the accuracy of
                            predicting it for every example
    ``constant_nll``        NLL of predicting the shares of the classes for every example, nats
    ======================  ================================================================

    ``auc`` and ``average_precision`` are computed when they are asked for. They are NaN where only
    one class occurs, and of more than 2²⁴ probabilities, which would have to be kept for that;
    :func:`roc_auc` and :func:`average_precision` then compute them from the prediction.
    ``scores.confusion`` has the confusion matrix and the share of each class.

    Args:
        prediction: the prediction of any ensemble.
        targets: the true class numbers ``[examples, ...]``, integers or bools; for numbers and
            multi-label predictions the targets in the shape of the prediction.
        ignore_index: class number of entries to ignore; none by default.
        constant: for numbers, the constant prediction to compare with; by default the mean and
            deviation of ``targets``.

    Raises:
        ValueError: the shapes differ, or a label is not among the classes.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> score(sure, np.array([0, 1]))["ece"]
        0.25
    """
    if isinstance(prediction, RegressionPrediction):
        return score_numbers(prediction, targets, constant)
    if isinstance(prediction, MultiLabelPrediction):
        return score_labels(prediction, targets)
    return _score_classes(*entries(prediction, targets, ignore_index))


def entries(
    prediction: Prediction, labels: Any, ignore_index: int | None = None
) -> tuple[Prediction, Labels]:
    """Return a prediction of tokens or pixels, and their labels, as if they were examples.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples, ...]``, one for each predicted class.
        ignore_index: class number of entries to leave out; none by default.

    Raises:
        ValueError: the shapes differ, no entry has a class, or a label is not among the classes.
    """
    probs = prediction.member_probs
    labels = whole_labels(labels) if len(probs) else np.asarray(labels)
    if probs.ndim == 3 and labels.shape == (len(probs), 1):
        labels = labels[:, 0]
    if probs.ndim > 3:
        expected = (len(probs), *probs.shape[3:])
        if labels.shape != expected:
            raise ValueError(
                f"labels must have the shape {list(expected)}, one for each predicted class, got "
                f"{list(labels.shape)}"
            )
        together, share = prediction.together, prediction.epistemic_share
        prediction = Prediction(
            np.moveaxis(probs, (1, 2), (-2, -1)).reshape(-1, *probs.shape[1:3]),
            None if together is None else np.moveaxis(together, 1, -1).reshape(-1, probs.shape[2]),
            None if share is None else share.reshape(-1),
        )
        labels = labels.reshape(-1)
    if ignore_index is not None and (labels == ignore_index).any():
        known = labels != ignore_index
        parts = prediction.member_probs, prediction.together, prediction.epistemic_share
        prediction = Prediction(*(None if each is None else each[known] for each in parts))  # type: ignore[arg-type]
        labels = labels[known]
    return prediction, checked_labels(prediction, labels)


def name_classes(scores: Scores, class_names: Sequence[Any]) -> None:
    """Give the confusion matrix of scores the names of its classes, if there are as many."""
    found = scores.confusion
    if found is not None and len(class_names) == len(found):
        scores.confusion = replace(found, class_names=tuple(map(str, class_names)))


def _score_classes(prediction: Prediction, labels: Labels) -> Scores:
    classes = prediction.probs.shape[1]
    right = prediction.labels == labels
    examples = np.bincount(labels, minlength=classes)
    balanced = balanced_accuracy(np.bincount(labels[right], minlength=classes), examples)
    return Scores(
        {
            "accuracy": float(right.mean()),
            "balanced_accuracy": balanced,
            **dict.fromkeys(RANKED, ...),
            "nll": float(losses_by_example(prediction, labels, "nll").mean()),
            "brier": float(losses_by_example(prediction, labels, "brier").mean()),
            "ece": reliability(prediction, labels).ece,
            "mutual_information": float(prediction.epistemic.mean()),
            "disagreement": disagreement(prediction),
            "member_accuracies": (prediction.member_labels == labels[:, None]).mean(0).tolist(),
            **constant_class(examples),
        },
        one_class=one_class(prediction),
        confusion=Confusion(pair_counts(prediction, labels)) if classes <= MOST_CLASSES else None,
        constant=SHARES_OF_ROWS,
        later=Ranked.of(prediction, labels),
    )
