"""The errors of a constant prediction, which a model must beat to be of use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import entr

from batchensemble.losses import EnsembleLoss, Standardised

MEAN_OF_TRAINING = "the mean of the training targets"
MEAN_OF_ROWS = "the mean of these targets"
SHARES_OF_ROWS = "the share of each class in these rows"


@dataclass(frozen=True)
class ConstantNumber:
    """A normal distribution that is predicted for every example.

    Attributes:
        mean: of each target, ``[targets]``, in its unit.
        deviation: of each target, ``[targets]``, in its unit.
        source: what it was computed from, in words.
    """

    mean: np.ndarray
    deviation: np.ndarray
    source: str = MEAN_OF_ROWS

    @classmethod
    def of_training(cls, loss: EnsembleLoss) -> ConstantNumber | None:
        """Return that of the training targets, if the loss knows them; else ``None``."""
        if not isinstance(loss, Standardised):
            return None
        return cls(np.array(loss.mean), np.array(loss.deviation), MEAN_OF_TRAINING)

    @classmethod
    def of_rows(cls, targets: np.ndarray) -> ConstantNumber:
        """Return that of targets ``[examples, ...]`` of which some may be NaN."""
        columns = _columns(targets)
        known = ~np.isnan(columns)
        counts = np.maximum(known.sum(1), 1)
        mean = np.where(known, columns, 0).sum(1) / counts
        squares = np.where(known, (columns - mean[:, None]) ** 2, 0).sum(1) / counts
        return cls(mean, np.sqrt(squares))

    def scores(self, targets: np.ndarray, density: bool) -> dict[str, float]:
        """Return its RMSE and MAE, and for ``density`` its NLL in nats, over the known targets.

        Args:
            targets: the true numbers, ``[examples, ...]``, NaN where not known.
            density: whether the model's prediction has a density, and so an NLL to compare with.

        Returns:
            ``constant_rmse``, ``constant_mae`` and, with ``density``, ``constant_nll``, which is
            NaN where the targets are all the same.
        """
        columns = _columns(targets)
        known = ~np.isnan(columns)
        errors = (columns - self.mean[:, None])[known]
        found = {
            "constant_rmse": float(np.sqrt(np.square(errors).mean())),
            "constant_mae": float(np.abs(errors).mean()),
        }
        if density:
            spread = np.broadcast_to(self.deviation[:, None], columns.shape)[known]
            if (spread > 0).all():
                logs = np.log(spread) + np.square(errors / spread) / 2
                found["constant_nll"] = float(logs.mean() + math.log(2 * math.pi) / 2)
            else:
                found["constant_nll"] = math.nan
        return found


def constant_class(examples: Any) -> dict[str, float]:
    """Return the scores of a prediction that gives every example the shares of the classes.

    Args:
        examples: number of examples of each class, ``[classes]``.

    Returns:
        ``constant_accuracy``, the share of the most frequent class, and ``constant_nll``, the
        entropy of the shares in nats.

    Example:
        >>> found = constant_class([97, 3])
        >>> found["constant_accuracy"], round(found["constant_nll"], 4)
        (0.97, 0.1347)
    """
    shares = np.asarray(examples) / np.sum(examples)
    return {"constant_accuracy": float(shares.max()), "constant_nll": float(entr(shares).sum())}


def _columns(targets: np.ndarray) -> np.ndarray:
    """Return ``[targets, values]``."""
    targets = np.asarray(targets, np.float64)
    if targets.ndim == 1:
        return targets[None]
    return np.moveaxis(targets, 1, 0).reshape(targets.shape[1], -1)
