"""The losses that a notebook prints, next to those of this run."""

from __future__ import annotations

from itertools import zip_longest

from batchensemble.comparison.results import Comparison
from batchensemble.comparison.wording import method_title


def printed_losses(comparison: Comparison) -> list[list[tuple[str, str, str]]]:
    """Return the notebook's loss, this run's and their difference, by epoch and training."""
    trainings = [list(zip_longest(*both)) for both in comparison.printed.values()]
    epochs = max((len(training) for training in trainings), default=0)
    return [
        [_pair(*training[epoch]) if epoch < len(training) else ("-",) * 3 for training in trainings]
        for epoch in range(epochs)
    ]


def notebook_errors(comparison: Comparison) -> list[tuple[str, float]]:
    """Return the calibration errors as the notebook counts them, by method."""
    return [
        (method_title(run.method), run.scores["notebook_ece"])
        for run in comparison.runs
        if run.scores.get("notebook_ece") is not None
    ]


def _pair(given: float | None, ours: float | None) -> tuple[str, str, str]:
    texts = ["-" if loss is None else f"{loss:.4f}" for loss in (given, ours)]
    if given is None or ours is None:
        return texts[0], texts[1], "-"
    # The notebook prints four decimals; further ones would be differences of rounding.
    difference = round(ours, 4) - round(given, 4)
    return texts[0], texts[1], f"{difference:+.4f}" if abs(difference) > 5e-5 else "0"
