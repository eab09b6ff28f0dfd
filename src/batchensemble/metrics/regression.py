"""Scores of predicted numbers: how far off, how honest about it, do the members differ."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scoringrules
from jaxtyping import Float
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error, r2_score

from batchensemble.data.tables.columns import refuse_times
from batchensemble.metrics.values import Scores
from batchensemble.predictions import Normals, Points, Quantiles, RegressionPrediction

COVERAGE = 0.9  # of the interval that is scored
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def score_numbers(prediction: RegressionPrediction, targets: Any) -> Scores:
    """Return the scores of predicted numbers, means over all targets that are known.

    ======================  ================================================================
    ``rmse``, ``mae``       root mean squared, and mean absolute, error of the mean, in the
                            targets' unit
    ``r2``                  share of the targets' variance that the mean explains; at most 1, and
                            NaN where all targets are the same, which have none
    ``nll``                 negative log density of the mixture, nats; of predictions that
                            have a density
    ``pinball``             mean pinball loss over the levels; of predicted quantiles
    ``crps``                continuous ranked probability score (Gneiting and Raftery 2007),
                            in the targets' unit: the absolute error of a distribution
    ``coverage``            share of targets inside the interval of ``coverage_meant``: 90%,
                            or as much as quantiles reach
    ``width``               mean width of these intervals, in the targets' unit
    ``epistemic``           root of the mean variance of the members' means
    ``aleatoric``           root of the mean of the members' variances
    ``member_rmses``        the RMSE of each member alone
    ======================  ================================================================

    Args:
        prediction: of any ensemble.
        targets: the true numbers, of the shape of ``prediction.mean``; NaN is not known.

    Raises:
        ValueError: they are of another shape, none is known, or one is infinite.

    Warns:
        UserWarning: there are several targets, all the same.

    Example:
        >>> sure = Normals(np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]]))
        >>> score_numbers(sure, [1.0, 4.0])["mae"]
        1.0
    """
    targets = checked_numbers(prediction, targets)
    known = ~np.isnan(targets)
    y, mean = targets[known], prediction.mean[known]
    low, high, meant = widest_interval(prediction)
    inside = (low[known] <= y) & (y <= high[known])
    values: dict[str, Any] = {
        "rmse": float(np.sqrt(mean_squared_error(y, mean))),
        "mae": float(mean_absolute_error(y, mean)),
        "r2": math.nan if no_variance(len(y), y.min(), y.max()) else float(r2_score(y, mean)),
    }
    if prediction.has_density:
        values["nll"] = -float(prediction.log_density(np.where(known, targets, 0))[known].mean())
    if isinstance(prediction, Quantiles):
        quantiles = np.moveaxis(prediction.together, 1, 0)
        values["pinball"] = float(
            np.mean(
                [
                    mean_pinball_loss(y, each[known], alpha=level)
                    for each, level in zip(quantiles, prediction.levels, strict=True)
                ]
            )
        )
    by_member = np.moveaxis(prediction.member_means, 1, 0)
    return Scores(
        {
            **values,
            "crps": float(crps(prediction, targets)[known].mean()),
            "coverage": float(inside.mean()),
            "coverage_meant": meant,
            "width": float((high - low)[known].mean()),
            "epistemic": float(np.sqrt(prediction.epistemic[known].mean())),
            "aleatoric": float(np.sqrt(prediction.aleatoric[known].mean())),
            "member_rmses": [
                float(np.sqrt(mean_squared_error(y, each[known]))) for each in by_member
            ],
        }
    )


def no_variance(targets: int, lowest: float, highest: float) -> bool:
    """Return whether targets are all the same, and warn that R² is NaN where these are several.

    Args:
        targets: how many are known.
        lowest, highest: of them.
    """
    if targets > 1 and lowest == highest:
        warnings.warn(
            f"R² is NaN: all {targets:,} targets are {lowest:g}, so there is no variance to "
            "explain; go by the RMSE, or score targets that differ",
            stacklevel=4,
        )
    return bool(lowest == highest)


def crps(prediction: RegressionPrediction, targets: Any) -> np.ndarray:
    """Return the continuous ranked probability score of each target, in the targets' unit.

    It is the area between the predicted distribution function and that of the target, squared: of
    a mixture of normals in closed form (Grimit et al. 2006, doi 10.1256/qj.05.235), of points that
    of their distribution function, of quantiles twice the mean pinball loss, an approximation that
    more levels make better. ``scoringrules`` computes it.

    Args:
        prediction: of any ensemble.
        targets: of the shape of ``prediction.mean``.
    """
    y = _shaped(prediction, targets)
    if isinstance(prediction, Normals):
        found = scoringrules.crps_mixnorm(y, prediction.means, prediction.deviations, m_axis=1)
    elif isinstance(prediction, Quantiles):
        found = scoringrules.crps_quantile(
            y, prediction.together, np.array(prediction.levels), m_axis=1
        )
    elif isinstance(prediction, Points):
        found = scoringrules.crps_ensemble(y, prediction.values, m_axis=1, estimator="nrg")
    else:
        raise TypeError(f"there is no CRPS of {type(prediction).__name__}")
    return np.asarray(found)


def pit(prediction: RegressionPrediction, targets: Any) -> np.ndarray:
    """Return the probability integral transform of the targets that are known, ``[known]``.

    It is the predicted probability of a target that is at most the true one (Dawid 1984); if the
    distributions are right, it is uniform from 0 to 1.
    """
    targets = checked_numbers(prediction, targets)
    known = ~np.isnan(targets)
    transform: np.ndarray = prediction.cdf(np.where(known, targets, 0))[known]
    return transform


@dataclass(frozen=True)
class IntervalCalibration:
    """How many targets are in intervals that should hold a given share (Kuleshov et al. 2018,
    arXiv 1807.00263).

    Attributes:
        levels: the shares meant.
        coverage: the shares that are.
        width: the mean width of the intervals, in the targets' unit.
    """

    levels: Float[np.ndarray, "levels"]
    coverage: Float[np.ndarray, "levels"]
    width: Float[np.ndarray, "levels"]

    @property
    def error(self) -> float:
        """The mean distance of the two shares."""
        return float(np.abs(self.coverage - self.levels).mean())


def interval_calibration(
    prediction: RegressionPrediction, targets: Any, levels: Sequence[float] = LEVELS
) -> IntervalCalibration:
    """Return the coverage and width of central intervals.

    Args:
        prediction: of any ensemble.
        targets: of the shape of ``prediction.mean``; NaN is not known.
        levels: the shares meant; of quantiles those that they reach are kept.

    Raises:
        ValueError: targets are of another shape, or no level can be reached.
    """
    targets = checked_numbers(prediction, targets)
    known = ~np.isnan(targets)
    if isinstance(prediction, Quantiles):
        levels = [each for each in levels if each <= prediction.widest + 1e-9]
        if not levels:
            raise ValueError("one quantile has no interval; train with two levels or more")
    rows = []
    for level in levels:
        low, high = (bound[known] for bound in prediction.interval(level))
        y = targets[known]
        rows.append((level, ((low <= y) & (y <= high)).mean(), (high - low).mean()))
    return IntervalCalibration(*np.array(rows, np.float64).T)


def checked_numbers(prediction: RegressionPrediction, targets: Any) -> np.ndarray:
    """Return the true numbers as an array of the shape of the prediction.

    Raises:
        ValueError: they are of another shape, none is known, or one is infinite.
    """
    targets = _shaped(prediction, targets)
    if np.isinf(targets).any():
        raise ValueError("targets must be finite, got an infinite one")
    if np.isnan(targets).all():
        raise ValueError("there must be at least one known target to score, got none")
    return targets


def _shaped(prediction: RegressionPrediction, targets: Any) -> np.ndarray:
    """Return numbers of the shape of the prediction, which are never broadcast to it."""
    refuse_times(np.asarray(targets), "targets")
    targets = np.asarray(targets, np.float64)
    expected = prediction.mean.shape
    if targets.shape == (*expected, 1) or targets.shape == (len(prediction), 1, *expected[1:]):
        targets = targets.reshape(expected)
    if targets.shape != expected:
        raise ValueError(
            f"targets must have the shape {list(expected)} of the prediction, got "
            f"{list(targets.shape)}"
        )
    return targets


def widest_interval(prediction: RegressionPrediction) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the bounds of the interval of 90%, or as much as quantiles reach, and its coverage.

    One quantile has none: both bounds are its mean, of coverage 0.
    """
    if isinstance(prediction, Quantiles):
        meant = min(COVERAGE, round(prediction.widest, 12))
        if meant <= 0:
            middle = prediction.mean
            return middle, middle, 0.0
        return *prediction.interval(meant), meant
    return *prediction.interval(COVERAGE), COVERAGE
