"""Predictions of an ensemble: classes, numbers, quantiles, labels."""

from __future__ import annotations

from batchensemble.core.deprecation import moved_to
from batchensemble.predictions.classes import Prediction
from batchensemble.predictions.from_outputs import (
    AnyPrediction,
    Reading,
    from_arrays,
    reading,
    to_arrays,
)
from batchensemble.predictions.labels import MultiLabelPrediction
from batchensemble.predictions.normals import Normals
from batchensemble.predictions.points import Points
from batchensemble.predictions.quantiles import Quantiles
from batchensemble.predictions.regression import RegressionPrediction

as_arrays = moved_to(
    "batchensemble.predictions.to_arrays", old="batchensemble.predictions.as_arrays", until="0.3"
)

__all__ = [
    "AnyPrediction",
    "MultiLabelPrediction",
    "Normals",
    "Points",
    "Prediction",
    "Quantiles",
    "Reading",
    "RegressionPrediction",
    "from_arrays",
    "reading",
    "to_arrays",
]
