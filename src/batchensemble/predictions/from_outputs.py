"""From outputs of a network to a prediction, by the loss that it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import Any

import numpy as np
from torch import Tensor

from batchensemble.losses import (
    MSE,
    BinaryCrossEntropy,
    ClassLoss,
    CrossEntropy,
    Custom,
    DistilledClasses,
    DistilledLabels,
    DistilledNormals,
    DistilledPoints,
    EnsembleLoss,
    GaussianNLL,
    Huber,
    Quantile,
    Standardised,
)
from batchensemble.predictions.classes import Prediction
from batchensemble.predictions.labels import MultiLabelPrediction
from batchensemble.predictions.normals import Normals
from batchensemble.predictions.points import Points
from batchensemble.predictions.quantiles import Quantiles
from batchensemble.predictions.regression import RegressionPrediction

AnyPrediction = Prediction | MultiLabelPrediction | RegressionPrediction
Arrays = tuple[np.ndarray, ...]
# The names of predictions in run files, which stay when a class is renamed.
PREDICTION_KINDS: dict[str, Any] = {
    "Prediction": Prediction,
    "MultiLabelPrediction": MultiLabelPrediction,
    "Points": Points,
    "Normals": Normals,
    "Quantiles": Quantiles,
}


@dataclass(frozen=True)
class Reading:
    """The functions that turn outputs into a prediction.

    Attributes:
        arrays: function from outputs ``[batch, members, ...]`` in float64 to arrays with the same
            first axis.
        make: function from these arrays, concatenated over all batches, to the prediction.
        check: function of the outputs' shape that raises ``ValueError`` if it does not fit.
    """

    arrays: Callable[[Tensor], tuple[Tensor, ...]]
    make: Callable[..., AnyPrediction]
    check: Callable[[Sequence[int]], None]

    def of(self, outputs: Tensor) -> Arrays:
        """Return the arrays of a batch.

        float64: a confident float32 softmax rounds to 0, whose log is infinite.
        """
        return tuple(each.cpu().numpy() for each in self.arrays(outputs.double()))


@singledispatch
def reading(loss: Any) -> Reading:
    """Return how outputs trained with a loss become a prediction.

    Args:
        loss: a loss of the package; others register a function with ``reading.register``.

    Raises:
        TypeError: the loss does not define a prediction.

    Example:
        >>> import torch
        >>> reading(MSE()).of(torch.zeros(5, 4, 1))[0].shape
        (5, 4)
    """
    raise TypeError(
        f"predict does not know what outputs trained with {loss!r} are; give a loss that defines "
        "it, such as loss='mse' or loss='cross_entropy'"
    )


@reading.register
def _(loss: ClassLoss) -> Reading:
    return _of_classes(loss, lambda outputs: loss.log_probs(outputs).exp())


@reading.register(CrossEntropy)
@reading.register(Custom)
def _(loss: CrossEntropy | Custom) -> Reading:
    return _of_classes(CrossEntropy(), lambda outputs: outputs.softmax(2))


@reading.register
def _(loss: BinaryCrossEntropy) -> Reading:
    return _of_numbers(loss, lambda outputs: (outputs.sigmoid(),), MultiLabelPrediction)


@reading.register(MSE)
@reading.register(Huber)
def _(loss: MSE | Huber) -> Reading:
    return _of_numbers(loss, lambda outputs: (outputs,), Points)


@reading.register
def _(loss: GaussianNLL) -> Reading:
    return _of_numbers(loss, loss.distribution, Normals)


@reading.register
def _(loss: DistilledClasses) -> Reading:
    def make(probs: np.ndarray, share: np.ndarray) -> Prediction:
        return Prediction(probs, epistemic_share=share[:, 0])

    return replace(_of_classes(loss, loss.log_probs), arrays=loss.distribution, make=make)


@reading.register
def _(loss: DistilledLabels) -> Reading:
    def make(probs: np.ndarray, share: np.ndarray) -> MultiLabelPrediction:
        return MultiLabelPrediction(probs, share[:, 0])

    return _of_numbers(loss, loss.distribution, make)


@reading.register
def _(loss: DistilledNormals) -> Reading:
    def make(means: np.ndarray, deviations: np.ndarray, epistemic: np.ndarray) -> Normals:
        return Normals(means, deviations, ((epistemic / deviations) ** 2)[:, 0])

    return _of_numbers(loss, loss.parts, make)


@reading.register
def _(loss: DistilledPoints) -> Reading:
    def make(means: np.ndarray, deviations: np.ndarray) -> Points:
        # Two numbers whose mean and variance are those predicted.
        return Points(np.concatenate((means - deviations, means + deviations), 1))

    return _of_numbers(loss, loss.parts, make)


@reading.register
def _(loss: Quantile) -> Reading:
    def arrays(outputs: Tensor) -> tuple[Tensor, ...]:
        return (outputs.unflatten(2, (len(loss.levels), -1)),)

    return _of_numbers(loss, arrays, lambda values: Quantiles(values, loss.levels), axis=3)


@reading.register
def _(loss: Standardised) -> Reading:
    plain = reading(loss.loss)
    axis = 3 if isinstance(loss.loss, Quantile) else 2
    mean, deviation = np.array(loss.mean), np.array(loss.deviation)

    def back(values: np.ndarray, shift: np.ndarray | float) -> np.ndarray:
        if values.ndim <= axis or len(mean) == 1:  # its axis of one target is gone
            return values * deviation[0] + np.reshape(shift, -1)[0]
        along = (-1, *[1] * (values.ndim - axis - 1))
        return values * deviation.reshape(along) + np.reshape(shift, along)

    def make(*arrays: np.ndarray) -> AnyPrediction:
        first, *spreads = arrays
        return plain.make(back(first, mean), *(back(each, 0 * mean) for each in spreads))

    return Reading(plain.arrays, make, plain.check)


def _of_classes(loss: ClassLoss, probs: Callable[[Tensor], Tensor]) -> Reading:
    def check(shape: Sequence[int]) -> None:
        if len(shape) < 3 or loss.classes(shape[2]) < 2:
            raise ValueError(
                "prediction takes outputs of shape [batch, members, classes] with at least 2 "
                f"classes, the network gives {list(shape)}; for another loss give it, such as "
                "loss='mse'"
            )

    return Reading(lambda outputs: (probs(outputs),), Prediction, check)


def _of_numbers(
    loss: EnsembleLoss,
    arrays: Callable[[Tensor], tuple[Tensor, ...]],
    make: Callable[..., AnyPrediction],
    axis: int = 2,
) -> Reading:
    """Return how numbers are read; an axis of one target is removed."""

    def without_axis(outputs: Tensor) -> tuple[Tensor, ...]:
        found = arrays(outputs)
        return tuple(
            each.squeeze(axis) if each.dim() > axis and each.shape[axis] == 1 else each
            for each in found
        )

    def check(shape: Sequence[int]) -> None:
        parts = loss.outputs_a_target if hasattr(loss, "outputs_a_target") else 1
        if len(shape) < 2 or (parts > 1 and (len(shape) < 3 or shape[2] % parts)):
            raise ValueError(
                f"prediction with {loss} takes outputs [batch, members, outputs, ...] with "
                f"{parts} for each target, the network gives {list(shape)}"
            )

    return Reading(without_axis, make, check)


def to_arrays(prediction: AnyPrediction) -> dict[str, np.ndarray]:
    """Return a prediction as arrays by name, for run files.

    Example:
        >>> list(to_arrays(Points(np.zeros((5, 4)))))
        ['Points.values']
    """
    kind = next(name for name, kind in PREDICTION_KINDS.items() if type(prediction) is kind)
    return {
        f"{kind}.{each.name}": np.asarray(getattr(prediction, each.name))
        for each in fields(prediction)  # type: ignore[arg-type]
        if getattr(prediction, each.name) is not None
    }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> AnyPrediction:
    """Return the prediction from the arrays of :func:`to_arrays`."""
    parts = {name.partition(".")[2]: each for name, each in arrays.items()}
    kind = PREDICTION_KINDS[next(iter(arrays)).partition(".")[0]]
    if "levels" in parts:
        parts["levels"] = parts["levels"].tolist()
    return kind(**parts)
