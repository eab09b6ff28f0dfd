"""Scores of predicted numbers: errors, likelihood, coverage, diversity of the members."""

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
from batchensemble.metrics.constant import ConstantNumber
from batchensemble.metrics.values import Scores
from batchensemble.predictions import Normals, Points, Quantiles, RegressionPrediction

COVERAGE = 0.9  # nominal coverage of the interval that is scored
COVERAGE_LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def score_numbers(
    prediction: RegressionPrediction, targets: Any, constant: ConstantNumber | None = None
) -> Scores:
    """Return the scores of predicted numbers, means over all known targets.

    ======================  ================================================================
    ``rmse``, ``mae``       root mean squared error and mean absolute error of the predicted
                            mean, in the targets' unit
    ``r2``                  share of the targets' variance explained by the predicted mean; at
                            most 1, NaN where all targets are the same
    ``nll``                 negative log density of the mixture, nats; for predictions with a
                            density
    ``pinball``             mean pinball loss over the levels; for predicted quantiles
    ``crps``                continuous ranked probability score (Gneiting and Raftery 2007),
                            in the targets' unit: the absolute error of a distribution
    ``coverage``            share of targets inside intervals of the nominal coverage
                            ``coverage_meant``: 90%, or as much as quantiles reach
    ``width``               mean width of these intervals, in the targets' unit
    ``epistemic``           root of the mean variance of the members' means
    ``aleatoric``           root of the mean of the members' variances
    ``member_rmses``        the RMSE of each member
    ``constant_rmse``,      the errors of predicting one mean for every example, in the targets'
    ``constant_mae``        unit; ``scores.constant`` says whose mean
    ``constant_nll``        NLL of the normal distribution of that mean and deviation, nats; for
                            predictions with a density
    ======================  ================================================================

    Args:
        prediction: the prediction of any ensemble.
        targets: the true numbers in the shape of ``prediction.mean``; NaN for unknown targets.
        constant: the constant prediction to compare with; by default the mean and deviation of
            these targets.

    Raises:
        ValueError: the targets have another shape, none is known, or one is infinite.

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
    constant = constant or ConstantNumber.of_rows(targets)
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
            **constant.scores(targets, prediction.has_density),
        },
        constant=constant.source,
    )


def no_variance(targets: int, lowest: float, highest: float) -> bool:
    """Return whether all targets are the same, and warn that R² is NaN if there are several.

    Args:
        targets: number of known targets.
        lowest, highest: the smallest and the largest of them.
    """
    if targets > 1 and lowest == highest:
        warnings.warn(
            f"R² is NaN: all {targets:,} targets are {lowest:g}, so there is no variance to "
            "explain; use the RMSE, or score targets that differ",
            stacklevel=4,
        )
    return bool(lowest == highest)


def crps(prediction: RegressionPrediction, targets: Any) -> np.ndarray:
    """Return the continuous ranked probability score of each target, in the targets' unit.

    It is the integral of the squared difference between the predicted distribution function and
    that of the target: in closed form for a mixture of normals (Grimit et al. 2006, doi
    10.1256/qj.05.235), of the empirical distribution function for points, and twice the mean
    pinball loss for quantiles, an approximation that improves with the number of levels.
    ``scoringrules`` computes it.

    Args:
        prediction: the prediction of any ensemble.
        targets: the true numbers in the shape of ``prediction.mean``.
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
    """Return the probability integral transform of the known targets, ``[known]``.

    It is the predicted distribution function at the target (Dawid 1984), and uniform from 0 to 1 if
    the predicted distributions are right.

    Args:
        prediction: the prediction of any ensemble.
        targets: the true numbers in the shape of ``prediction.mean``; NaN for unknown targets.
    """
    targets = checked_numbers(prediction, targets)
    known = ~np.isnan(targets)
    transform: np.ndarray = prediction.cdf(np.where(known, targets, 0))[known]
    return transform


@dataclass(frozen=True)
class IntervalCalibration:
    """Coverage of intervals against their nominal coverage (Kuleshov et al. 2018,
    arXiv 1807.00263).

    Attributes:
        levels: nominal coverages, 0 to 1, ``[levels]``.
        coverage: observed coverages, 0 to 1, ``[levels]``.
        width: mean widths of the intervals, in the targets' unit, ``[levels]``.
    """

    levels: Float[np.ndarray, "levels"]
    coverage: Float[np.ndarray, "levels"]
    width: Float[np.ndarray, "levels"]

    @property
    def error(self) -> float:
        """The mean absolute difference of observed and nominal coverage."""
        return float(np.abs(self.coverage - self.levels).mean())


def interval_calibration(
    prediction: RegressionPrediction, targets: Any, levels: Sequence[float] = COVERAGE_LEVELS
) -> IntervalCalibration:
    """Return the coverage and width of central intervals.

    Args:
        prediction: the prediction of any ensemble.
        targets: the true numbers in the shape of ``prediction.mean``; NaN for unknown targets.
        levels: nominal coverages, 0.05 to 0.95 by default; quantiles use those that they reach.

    Raises:
        ValueError: the targets have another shape, or no level can be reached.
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
    """Return the true numbers as an array in the shape of the prediction.

    Raises:
        ValueError: they have another shape, none is known, or one is infinite.
    """
    targets = _shaped(prediction, targets)
    if np.isinf(targets).any():
        raise ValueError("targets must be finite, got an infinite one")
    if np.isnan(targets).all():
        raise ValueError("there must be at least one known target to score, got none")
    return targets


def _shaped(prediction: RegressionPrediction, targets: Any) -> np.ndarray:
    """Return numbers in the shape of the prediction, without broadcasting."""
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
    """Return the bounds of the 90% interval, or of the widest of quantiles, and its coverage.

    A single quantile has no interval: both bounds are its mean, with coverage 0.
    """
    if isinstance(prediction, Quantiles):
        meant = min(COVERAGE, round(prediction.widest, 12))
        if meant <= 0:
            middle = prediction.mean
            return middle, middle, 0.0
        return *prediction.interval(meant), meant
    return *prediction.interval(COVERAGE), COVERAGE
