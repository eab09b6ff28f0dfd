"""Calibration error: of bins, smooth, of each class, and its interval by chance."""
