"""Calibration error: binned, smooth, by class, and its bootstrap interval."""
