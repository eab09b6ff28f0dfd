"""Interrupted trainings: checkpoints, and how a training is resumed."""
