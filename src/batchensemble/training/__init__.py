"""Training: ``fit`` and all that it stands on."""
