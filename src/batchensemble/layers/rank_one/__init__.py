"""Rank-one fast weights: the arithmetic, how they start, and the layer that owns them."""
