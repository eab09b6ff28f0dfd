"""The commands that work with one model: train, evaluate, predict."""
