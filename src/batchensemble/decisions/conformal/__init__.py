"""Conformal prediction: sets of classes and intervals of numbers with a guarantee."""
