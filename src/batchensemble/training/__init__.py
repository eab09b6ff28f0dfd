"""Training: ``fit``, its loop, callbacks, checkpoints and optimisers."""
