"""A model card: what a model is, its scores, when not to trust it, and how to load it."""

from __future__ import annotations

from batchensemble.report.card.model_card import model_card

__all__ = ["model_card"]
