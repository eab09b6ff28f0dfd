"""How much of an ensemble's gain one network keeps that is distilled from it."""
