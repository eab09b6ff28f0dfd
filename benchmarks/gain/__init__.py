"""What a BatchEnsemble keeps of a deep ensemble's gain: docs/gain.md."""
