"""Calibration after training: temperature, vector scaling, Platt's sigmoid, isotonic regression."""

from __future__ import annotations

from batchensemble.ensembles.calibrators import (
    METHODS,
    Calibrator,
    Isotonic,
    Platt,
    Pooling,
    Temperature,
    Vector,
)

__all__ = ["METHODS", "Calibrator", "Isotonic", "Platt", "Pooling", "Temperature", "Vector"]
