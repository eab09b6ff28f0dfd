"""The cost of an ensemble: weights, arithmetic and time."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from batchensemble.data.batches import ArrayBatches
from batchensemble.ensembles import Ensemble
from batchensemble.layers.modes import evaluating
from batchensemble.losses import CrossEntropy, make_loss
from batchensemble.losses.targets import parted
from batchensemble.training.history import History

TIMED_REPETITIONS = 15


@dataclass(frozen=True)
class Cost:
    """The cost of one trained ensemble.

    Attributes:
        parameters: number of parameters.
        parameters_per_member: number of parameters that each member has for itself.
        parameter_ratio: parameters over those of one plain network.
        forward_calls: number of forward calls of a network during training.
        training_multiply_adds: multiply-adds in matrix products per example, forward and backward.
            An ensemble that runs all members in one call saves calls, not these.
        prediction_multiply_adds: multiply-adds in matrix products per example.
        training_seconds: training time in seconds, without validation.
        milliseconds_per_1000: median time to predict 1,000 examples in one batch, milliseconds.
    """

    parameters: int
    parameters_per_member: int
    parameter_ratio: float
    forward_calls: int
    training_multiply_adds: float
    prediction_multiply_adds: float
    training_seconds: float
    milliseconds_per_1000: float

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as a dictionary for JSON."""
        return asdict(self)


def measure_cost(model: Ensemble, inputs: Tensor, targets: Tensor, history: History) -> Cost:
    """Return the cost of an ensemble.

    Args:
        model: the trained ensemble; its weights stay as they are, its gradients are cleared.
        inputs: as many examples as a training batch has, ``[examples, features...]``.
        targets: their targets, in the form that the model's loss takes.
        history: the history of its training.
    """
    counts = model.parameter_counts()
    with torch.random.fork_rng([]):
        training, prediction = multiply_adds(model, inputs, targets)
    return Cost(
        parameters=int(counts["parameters"]),
        parameters_per_member=int(counts["parameters_per_member"]),
        parameter_ratio=counts["parameter_ratio"],
        forward_calls=history.total_forward_calls,
        training_multiply_adds=training,
        prediction_multiply_adds=prediction,
        training_seconds=history.total_seconds,
        milliseconds_per_1000=milliseconds_per_1000(model, inputs),
    )


def multiply_adds(model: Ensemble, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the multiply-adds per example of a training step and of a prediction.

    They are half of the floating-point operations that torch counts in the matrix products that
    really run.

    Args:
        model: the ensemble; its gradients are cleared.
        inputs: examples, ``[examples, features...]``.
        targets: their targets, in the form that the model's loss takes.
    """
    draw = model.draw if model.own_examples else None
    batches = ArrayBatches(inputs, targets, len(inputs), draw=draw)
    [(rows, row_targets)] = ((inputs, parted(found)[0]) for inputs, found in batches)
    with evaluating(model):  # the products are the same, and the statistics of batch norm stay
        with FlopCounterMode(display=False) as training:
            outputs = model(rows, per_member=model.own_examples)
            loss = make_loss(model.loss or CrossEntropy(), per_member=model.own_examples)
            loss(outputs, row_targets).sum().backward()
        model.zero_grad()
        with FlopCounterMode(display=False) as prediction, torch.no_grad():
            model(inputs)
    per_example = 2 * len(inputs)
    return (
        training.get_total_flops() / per_example,
        prediction.get_total_flops() / per_example,
    )


def milliseconds_per_1000(model: Ensemble, inputs: Tensor) -> float:
    """Return the median time of one forward pass of 1,000 examples, in milliseconds."""
    rows = inputs.repeat(-(-1000 // len(inputs)), *[1] * (inputs.dim() - 1))[:1000]
    seconds = []
    with evaluating(model), torch.no_grad():
        model(rows)
        for _ in range(TIMED_REPETITIONS):
            start = time.perf_counter()
            model(rows)
            seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)
