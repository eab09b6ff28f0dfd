"""The first call of an ensemble finds out whether its members can share one forward pass."""
