"""What an ensemble tells the network that is distilled from it, as the targets of its loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.ensembles import Ensemble
from batchensemble.layers.modes import evaluating
from batchensemble.losses import EnsembleLoss, Standardised
from batchensemble.predictions import (
    MultiLabelPrediction,
    Normals,
    Points,
    Prediction,
)
from batchensemble.predictions.predict import predict_batches

ASKED_AT_ONCE = 1024  # examples whose members' predictions are held at a time


def told_by(model: Ensemble, loss: EnsembleLoss, inputs: Inputs) -> Tensor:
    """Return an ensemble's numbers for each example, ``[examples, numbers, ...]``, float32.

    Numbers of standardised targets are in standard units, as the outputs are.

    Args:
        model: the ensemble.
        loss: the loss that it was trained with, of which :func:`~batchensemble.losses.as_distilled`
            knows the one of a distilled network.
        inputs: the examples.
    """
    plain = loss.loss if isinstance(loss, Standardised) else loss

    def batches() -> Iterator[tuple[Inputs, Tensor]]:
        for start in range(0, len(inputs), ASKED_AT_ONCE):
            yield inputs[start : start + ASKED_AT_ONCE], torch.zeros(0)

    with evaluating(model), torch.no_grad():
        told = [numbers_told(found) for found, _ in predict_batches(model, plain, batches())]
    return torch.from_numpy(np.concatenate(told)).float()


@singledispatch
def numbers_told(prediction: object) -> np.ndarray:
    """Return the numbers of a prediction, in the order of its loss.

    Args:
        prediction: of one of the kinds below.

    Example:
        >>> numbers_told(Points(np.array([[1.0, 3.0]]))).tolist()
        [[2.0, 1.0]]
    """
    raise TypeError(f"a {type(prediction).__name__} cannot be distilled")


@numbers_told.register
def _(prediction: Prediction) -> np.ndarray:
    total = prediction.total[:, None]
    # A calibrator of the mean leaves the members as they are: the total divides as theirs does.
    parts = (prediction.aleatoric + prediction.epistemic)[:, None]
    share = prediction.epistemic[:, None] / np.maximum(parts, np.finfo(np.float64).tiny)
    return np.concatenate((prediction.probs, total * (1 - share), total * share), 1)


@numbers_told.register
def _(prediction: MultiLabelPrediction) -> np.ndarray:
    return _side_by_side(prediction.probs, prediction.aleatoric, prediction.epistemic)


@numbers_told.register
def _(prediction: Normals) -> np.ndarray:
    return _side_by_side(prediction.mean, prediction.aleatoric, prediction.epistemic)


@numbers_told.register
def _(prediction: Points) -> np.ndarray:
    return _side_by_side(prediction.mean, prediction.epistemic)


def _side_by_side(*parts: np.ndarray) -> np.ndarray:
    """Return numbers ``[examples, targets, ...]`` along the axis of targets, which may be gone."""
    return np.concatenate([each[:, None] if each.ndim == 1 else each for each in parts], 1)
