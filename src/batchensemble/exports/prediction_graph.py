"""From the members' outputs to a prediction, in tensor operations that a graph can hold.

The counterpart of :mod:`batchensemble.predictions`, which works in float64 on arrays. In float32 a
difference of two entropies would lose its last digits, and a confident softmax rounds to 0, so all
is computed from log-probabilities, and the epistemic uncertainty as a mean divergence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from statistics import NormalDist
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchensemble.core.arguments import between, one_of
from batchensemble.ensembles.calibrators import Calibrator
from batchensemble.losses import (
    MSE,
    BinaryCrossEntropy,
    ClassLoss,
    Custom,
    GaussianNLL,
    Huber,
    Quantile,
    Standardised,
)

Found = dict[str, Tensor]
UNCERTAINTY_OUTPUTS = ("total", "aleatoric", "epistemic")
SECTIONS, STEPS = 16, 8  # of a search to 16 ** -8 of its range, finer than float32


class AnswerRule(Protocol):
    """A threshold on an uncertainty, such as :func:`batchensemble.threshold_for` returns.

    Attributes:
        by: name of the uncertainty.
        value: answer where it is below.
    """

    @property
    def by(self) -> str: ...  # noqa: D102

    @property
    def value(self) -> float: ...  # noqa: D102


class PredictionGraph(nn.Module):
    """A module from the members' outputs ``[batch, members, ...]`` to what they predict, by name.

    Attributes:
        kind: what is predicted: ``"classes"``, ``"labels"`` or ``"numbers"``.
        choices: the names of all that it can give.
    """

    kind: str
    choices: tuple[str, ...]

    def forward(self, outputs: Tensor) -> Found:
        """Return what is predicted, by name; what nobody takes, the exporter removes."""
        raise NotImplementedError


class ClassGraph(PredictionGraph):
    """The prediction of classes, see :class:`batchensemble.predictions.Prediction`."""

    kind = "classes"
    choices: tuple[str, ...] = ("mean", *UNCERTAINTY_OUTPUTS, "confidence", "label", "members")

    def __init__(self, loss: Any, calibrator: Calibrator | None) -> None:
        super().__init__()
        self.loss = loss
        self.calibrator = calibrator

    def forward(self, outputs: Tensor) -> Found:
        """Return probabilities, entropies in nats, and the most probable class."""
        calibrator = self.calibrator
        after = calibrator is not None and calibrator.pooling == "after"
        if calibrator is not None and not after:
            outputs = calibrator(outputs)
        logs = (
            outputs.log_softmax(2)
            if isinstance(self.loss, Custom)
            else self.loss.log_probs(outputs)
        )
        mean = log_mean_of_members(logs)
        together = calibrator(mean).log_softmax(1) if after and calibrator is not None else mean
        probs = together.exp()
        label = probs.argmax(1)
        return {
            "mean": probs,
            "total": -(probs * together).sum(1),
            "aleatoric": -(logs.exp() * logs).sum(2).mean(1),
            "epistemic": mean_divergence(logs, mean, 2),
            "confidence": probs.amax(1),
            "label": label,
            "members": logs.exp(),
        }


class LabelGraph(PredictionGraph):
    """The prediction of labels, see :class:`batchensemble.predictions.MultiLabelPrediction`."""

    kind = "labels"
    choices: tuple[str, ...] = ("mean", *UNCERTAINTY_OUTPUTS, "label", "members")

    def forward(self, outputs: Tensor) -> Found:
        """Return the probability of each label, its entropies in nats, and whether it is there."""
        logits = without_axis_of_one(outputs, 2)
        logs = torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], 2)
        mean = log_mean_of_members(logs)
        probs = mean.exp()[:, 0]
        return {
            "mean": probs,
            "total": -(mean.exp() * mean).sum(1),
            "aleatoric": -(logs.exp() * logs).sum(2).mean(1),
            "epistemic": mean_divergence(logs, mean, 2),
            "label": (probs > 0.5).to(torch.int64),
            "members": logits.sigmoid(),
        }


class NumberGraph(PredictionGraph):
    """The prediction of numbers, see :class:`batchensemble.predictions.RegressionPrediction`.

    Args:
        loss: of the outputs, in standard units if targets were standardised.
        levels: of the quantiles.
        mean: mean of each target, to which outputs are put back; none if targets were as they are.
        deviation: their standard deviations.
    """

    kind = "numbers"
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        loss: Any,
        levels: Sequence[float] = (),
        mean: Sequence[float] = (0.0,),
        deviation: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.loss = loss
        self.levels = tuple(between("quantiles", level, 0, 1) for level in levels)
        self.register_buffer("shift", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(deviation))
        own = ("members", "member_variances") if isinstance(loss, (GaussianNLL, Quantile)) else ()
        quantiles = ("quantiles",) if self.levels else ()
        self.choices = ("mean", *UNCERTAINTY_OUTPUTS, *quantiles, *(own or ("members",)))

    def forward(self, outputs: Tensor) -> Found:
        """Return means, variances by source and quantiles, in the unit of the targets."""
        means, variances, quantiles = self.in_standard_units(outputs)
        aleatoric = variances.mean(1)
        epistemic = means.var(1, correction=0)
        found = {
            "mean": self.back(means.mean(1), 1),
            "total": self.squared(aleatoric + epistemic, 1),
            "aleatoric": self.squared(aleatoric, 1),
            "epistemic": self.squared(epistemic, 1),
            "members": self.back(means, 2),
            "member_variances": self.squared(variances, 2),
        }
        if quantiles is not None:
            found["quantiles"] = self.back(quantiles, 2)
        return found

    def in_standard_units(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the members' means and variances, and the quantiles ``[batch, levels, ...]``."""
        if isinstance(self.loss, GaussianNLL):
            means, deviations = (
                without_axis_of_one(each, 2) for each in self.loss.distribution(outputs)
            )
            quantiles = mixture_quantiles(means, deviations, self.levels) if self.levels else None
            return means, deviations.square(), quantiles
        if isinstance(self.loss, Quantile):
            return self._of_quantiles(outputs)
        values = without_axis_of_one(outputs, 2)
        return values, torch.zeros_like(values), quantiles_of_points(values, self.levels)

    def _of_quantiles(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        trained = sorted(self.loss.levels)
        values = without_axis_of_one(outputs.unflatten(2, (len(trained), -1)), 3)
        order = sorted(range(len(trained)), key=self.loss.levels.__getitem__)
        values = values[:, :, order].sort(2).values
        edges = [0.0, *trained, 1.0]
        weights = [(after - before) / 2 for before, after in zip(edges, edges[2:], strict=False)]
        weights[0] += edges[1] / 2
        weights[-1] += (1 - edges[-2]) / 2
        means = (values * along(values, weights, 2)).sum(2)
        spread = torch.zeros_like(means)
        if len(trained) > 1:
            low, high = (NormalDist().inv_cdf(trained[place]) for place in (0, -1))
            spread = (values[:, :, -1] - values[:, :, 0]) / (high - low)
        for level in self.levels:
            if not trained[0] <= level <= trained[-1]:
                raise ValueError(
                    f"quantiles must be from {trained[0]:g} to {trained[-1]:g}, the levels that "
                    f"the network was trained on, got {level:g}"
                )
        parts = [interpolation(trained, level) for level in self.levels]
        together = values.mean(1)
        return means, spread.square(), _mixed(together, parts)

    def back(self, values: Tensor, axis: int) -> Tensor:
        """Return standardised numbers in the unit of the targets, which lie along an axis."""
        return values * self._along(self.scale, values, axis) + self._along(
            self.shift, values, axis
        )

    def squared(self, values: Tensor, axis: int) -> Tensor:
        """Return variances in the square of that unit."""
        return values * self._along(self.scale.square(), values, axis)

    def _along(self, numbers: Any, values: Tensor, axis: int) -> Tensor:
        if len(numbers) == 1:
            return numbers
        return numbers.view(-1, *[1] * (values.dim() - axis - 1))


def log_mean_of_members(logs: Tensor) -> Tensor:
    """Return the logarithm of the members' mean probability, from ``[batch, members, ...]``."""
    return logs.logsumexp(1) - math.log(logs.shape[1])


def mean_divergence(logs: Tensor, mean: Tensor, axis: int) -> Tensor:
    """Return the mutual information: the members' mean divergence from their mean, nats.

    It is the entropy of the mean less the mean of the entropies, without their difference.
    """
    return (logs.exp() * (logs - mean.unsqueeze(1))).sum(axis).mean(1).clamp(min=0)


def without_axis_of_one(outputs: Tensor, axis: int) -> Tensor:
    """Return outputs without the axis of one target."""
    return outputs.squeeze(axis) if outputs.dim() > axis and outputs.shape[axis] == 1 else outputs


def mixture_quantiles(means: Tensor, deviations: Tensor, levels: Sequence[float]) -> Tensor:
    """Return quantiles of an equal mixture of normal distributions.

    By bisection, but into 16 sections at a time: four times fewer operations in the graph.

    Args:
        means: ``[batch, members, ...]``.
        deviations: alike.
        levels: of the quantiles.

    Returns:
        ``[batch, levels, ...]``.
    """
    wanted = along(means, levels, 1)
    standard = along(means, [NormalDist().inv_cdf(level) for level in levels], 1)
    edges = along(means, [number / SECTIONS for number in range(1, SECTIONS)], 0).unsqueeze(1)
    means, deviations = means.unsqueeze(2), deviations.unsqueeze(2)
    each = means + deviations * standard
    low, width = each.amin(1), each.amax(1) - each.amin(1)
    for _ in range(STEPS):
        points = (low + width * edges).unsqueeze(2)
        z = (points - means) / (deviations * math.sqrt(2))
        below = 0.5 * (1 + torch.erf(z)).mean(2) < wanted
        width = width / SECTIONS
        low = low + width * below.to(low).sum(0)
    return low + 0.5 * width


def quantiles_of_points(values: Tensor, levels: Sequence[float]) -> Tensor | None:
    """Return quantiles of the members' numbers ``[batch, members, ...]``, as NumPy has them."""
    members = values.shape[1]
    places = [level * (members - 1) for level in levels]
    parts = [(min(int(place), members - 1), place - int(place)) for place in places]
    return _mixed(values.sort(1).values, parts)


def interpolation(levels: Sequence[float], level: float) -> tuple[int, float]:
    """Return between which of the ascending levels one lies, and how far it is to the next.

    Example:
        >>> interpolation([0.1, 0.5, 0.9], 0.6)[0]
        1
    """
    below = max(index for index, each in enumerate(levels) if each <= level)
    if below == len(levels) - 1:
        return below, 0.0
    return below, (level - levels[below]) / (levels[below + 1] - levels[below])


def _mixed(values: Tensor, parts: Sequence[tuple[int, float]]) -> Tensor | None:
    """Return values between neighbours along axis 1, ``[batch, parts, ...]``."""
    if not parts:
        return None
    last = values.shape[1] - 1
    return torch.stack(
        [
            values[:, below] * (1 - share) + values[:, min(below + 1, last)] * share
            for below, share in parts
        ],
        1,
    )


def along(values: Tensor, numbers: Sequence[float], axis: int) -> Tensor:
    """Return numbers in a shape that broadcasts to ``values``, along one of its axes."""
    found = torch.tensor(numbers, dtype=values.dtype)
    return found.view(-1, *[1] * (values.dim() - axis - 1))


@singledispatch
def prediction_graph(
    loss: Any, calibrator: Calibrator | None, levels: Sequence[float]
) -> PredictionGraph:
    """Return how outputs trained with a loss become a prediction.

    Args:
        loss: the loss.
        calibrator: of classes.
        levels: of the quantiles of numbers.

    Raises:
        TypeError: the loss does not define a prediction.
    """
    raise TypeError(
        f"export does not know what outputs trained with {loss!r} are; give outputs='raw' for the "
        "members' outputs as they are"
    )


@prediction_graph.register(ClassLoss)
@prediction_graph.register(Custom)
def _(loss: Any, calibrator: Calibrator | None, levels: Sequence[float]) -> PredictionGraph:
    return ClassGraph(loss, calibrator)


@prediction_graph.register
def _(
    loss: BinaryCrossEntropy, calibrator: Calibrator | None, levels: Sequence[float]
) -> PredictionGraph:
    return LabelGraph()


@prediction_graph.register(MSE)
@prediction_graph.register(Huber)
@prediction_graph.register(GaussianNLL)
@prediction_graph.register(Quantile)
def _(loss: Any, calibrator: Calibrator | None, levels: Sequence[float]) -> PredictionGraph:
    return NumberGraph(loss, levels)


@prediction_graph.register
def _(
    loss: Standardised, calibrator: Calibrator | None, levels: Sequence[float]
) -> PredictionGraph:
    inner: Any = prediction_graph(loss.loss, calibrator, levels)
    found: PredictionGraph = type(inner)(loss.loss, levels, loss.mean, loss.deviation)
    return found


def uncertainty_for(rule: AnswerRule, graph: PredictionGraph) -> str:
    """Return the name of the uncertainty that a threshold is on.

    Raises:
        ValueError: the graph does not compute it.
    """
    if rule.by == "given":
        raise ValueError(
            "the threshold is on an uncertainty of your own, which the file cannot compute; take "
            "by='total', 'aleatoric' or 'epistemic'"
        )
    known = [name for name in (*UNCERTAINTY_OUTPUTS, "confidence") if name in graph.choices]
    return one_of("threshold.by", rule.by, known)
