"""Predictions of distilled networks: their uncertainty by source is an output of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from batchensemble.ensembles.calibrators import Calibrator
from batchensemble.exports.prediction_graph import (
    UNCERTAINTY_OUTPUTS,
    ClassGraph,
    Found,
    LabelGraph,
    NumberGraph,
    PredictionGraph,
    prediction_graph,
    without_axis_of_one,
)
from batchensemble.losses import (
    DistilledClasses,
    DistilledLabels,
    DistilledNormals,
    DistilledPoints,
)


class DistilledClassGraph(ClassGraph):
    """Classes: the last output is the logit of the epistemic share of the entropy."""

    choices = ("mean", *UNCERTAINTY_OUTPUTS, "confidence", "label")

    def forward(self, outputs: Tensor) -> Found:
        """Return probabilities, entropies in nats, and the most probable class."""
        found = super().forward(outputs)
        return divided(found, outputs[:, :, -1].sigmoid().mean(1))


class DistilledLabelGraph(LabelGraph):
    """Labels: first the logits, then those of the epistemic shares."""

    choices = ("mean", *UNCERTAINTY_OUTPUTS, "label")

    def forward(self, outputs: Tensor) -> Found:
        """Return the probability of each label, its entropies in nats, and whether it is there."""
        logits, share = outputs.unflatten(2, (2, -1)).unbind(2)
        return divided(super().forward(logits), without_axis_of_one(share, 2).sigmoid().mean(1))


class DistilledNumberGraph(NumberGraph):
    """Numbers: the last outputs say how uncertain the ensemble's members are together."""

    def __init__(self, loss: Any, levels: Sequence[float] = (), *unit: Sequence[float]) -> None:
        if levels and isinstance(loss, DistilledPoints):
            raise ValueError("quantiles are of distributions, and the network was distilled to one")
        super().__init__(loss, levels, *unit)
        self.choices = tuple(
            name for name in self.choices if name not in ("members", "member_variances")
        )

    def forward(self, outputs: Tensor) -> Found:
        """Return means, variances by source and quantiles, in the unit of the targets."""
        found = super().forward(outputs)
        *_, deviation = self.loss.parts(outputs)
        epistemic = without_axis_of_one(deviation, 2).square().mean(1)
        found["epistemic"] = self.squared(epistemic, 1)
        if isinstance(self.loss, DistilledPoints):
            return {**found, "total": found["aleatoric"] + found["epistemic"]}
        return {**found, "aleatoric": found["total"] - found["epistemic"]}

    def in_standard_units(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the means and variances, and the quantiles ``[batch, levels, ...]``."""
        if isinstance(self.loss, DistilledPoints):
            means = without_axis_of_one(self.loss.parts(outputs)[0], 2)
            return means, torch.zeros_like(means), None
        return super().in_standard_units(outputs)


def divided(found: Found, share: Tensor) -> Found:
    """Return a prediction with its total uncertainty divided by the epistemic share."""
    epistemic = found["total"] * share
    return {**found, "epistemic": epistemic, "aleatoric": found["total"] * (1 - share)}


@prediction_graph.register
def _(
    loss: DistilledClasses, calibrator: Calibrator | None, levels: Sequence[float]
) -> PredictionGraph:
    return DistilledClassGraph(loss, calibrator)


@prediction_graph.register
def _(
    loss: DistilledLabels, calibrator: Calibrator | None, levels: Sequence[float]
) -> PredictionGraph:
    return DistilledLabelGraph()


@prediction_graph.register(DistilledNormals)
@prediction_graph.register(DistilledPoints)
def _(loss: Any, calibrator: Calibrator | None, levels: Sequence[float]) -> PredictionGraph:
    return DistilledNumberGraph(loss, levels)
