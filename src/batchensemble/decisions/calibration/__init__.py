"""Calibration after training: temperature, vector scaling, Platt's sigmoid, isotonic regression."""

from __future__ import annotations

from batchensemble.ensembles.calibrators import (
    CALIBRATORS,
    Calibrator,
    Isotonic,
    Platt,
    Pooling,
    Temperature,
    Vector,
)

__all__ = ["CALIBRATORS", "Calibrator", "Isotonic", "Platt", "Pooling", "Temperature", "Vector"]
