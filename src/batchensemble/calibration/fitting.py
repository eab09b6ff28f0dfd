"""How calibrators are fitted, in float64 on a CPU: by SciPy and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from batchensemble.calibration.calibrators import (
    Calibrator,
    Isotonic,
    Platt,
    Pooling,
    Temperature,
    Vector,
    log_odds,
    log_of,
)

HOTTEST = float(np.log(1000.0))  # the log of the largest temperature, less that of the smallest
GRID = 31  # temperatures that are tried before the search
LARGEST_BIAS = 20.0


def nll(calibrator: Calibrator | None, logits: Tensor, labels: Tensor) -> float:
    """Return the mean negative log-likelihood of the ensemble's probabilities, nats.

    Args:
        calibrator: by which they are calibrated; none leaves them.
        logits: of the members, ``[examples, members, classes]``, float64.
        labels: ``[examples]``.
    """
    with torch.no_grad():
        if calibrator is None:
            return float(_loss(logits, labels))
        if calibrator.pooling == "before":
            return float(_loss(calibrator(logits), labels))
        return float(_loss(calibrator(pooled(logits)).unsqueeze(1), labels))


def pooled(logits: Tensor) -> Tensor:
    """Return the log of the members' mean probabilities, ``[examples, classes]``."""
    return log_of(logits.softmax(2).mean(1))


def fit_temperature(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Temperature:
    """Return the temperature with the least NLL of the ensemble's probabilities.

    After the mean the NLL is convex in 1 / T, so it has one minimum, which Brent's method finds on
    log T. Before it the NLL is that of a mixture, and not convex: the search starts from the best
    of a grid, so that no temperature of the grid, 1 among them, is better than what is found.
    Temperatures of each member start from the common one.
    """
    given = pooled(logits).unsqueeze(1) if pooling == "after" else logits

    def value(log_temperature: float) -> float:
        return float(_loss(given / np.exp(log_temperature), labels))

    grid = np.linspace(-HOTTEST, HOTTEST, GRID)
    best = int(np.argmin([value(each) for each in grid]))
    if best == 0:
        warnings.warn(
            "the calibration data are told apart so well that the likelihood wants certainty "
            "(temperature 0), so they cannot tell the temperature, and 1 is kept; give more data",
            stacklevel=4,
        )
        return Temperature(pooling, torch.ones(logits.shape[1] if per_member else 1))
    around = grid[best - 1], grid[min(best + 1, GRID - 1)]
    found = minimize_scalar(value, bounds=around, method="bounded", options={"xatol": 1e-7})
    common = float(found.x) if found.fun <= value(grid[best]) else float(grid[best])
    if not per_member:
        return Temperature(pooling, torch.tensor([common]).exp())
    start = torch.full((logits.shape[1],), common, dtype=torch.float64)

    def loss(log_temperatures: Tensor) -> Tensor:
        return _loss(logits / log_temperatures.exp().view(-1, 1), labels)

    own = _least(loss, start, [(-HOTTEST, HOTTEST)] * len(start))
    return Temperature(pooling, own.exp())


def fit_vector(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Vector:
    """Return the weights and biases with the least NLL of the ensemble's probabilities.

    L-BFGS-B starts from the temperature's solution. After the mean the NLL is convex, a logistic
    regression on the log-probabilities; before it, it is not.
    """
    given = pooled(logits).unsqueeze(1) if pooling == "after" else logits
    groups, classes = (logits.shape[1] if per_member else 1), logits.shape[2]
    log_probs = given.log_softmax(2)
    start = fit_temperature(logits, labels, pooling).temperature.double().log()
    shape = (groups, classes)
    both = torch.cat([-start.expand(groups * classes), torch.zeros(groups * classes)])

    def loss(parameters: Tensor) -> Tensor:
        weight, bias = (each.view(shape) for each in parameters.chunk(2))
        return _loss(log_probs * weight.exp() + bias, labels)

    ends = [(-HOTTEST, HOTTEST)] * both.shape[0]
    ends[groups * classes :] = [(-LARGEST_BIAS, LARGEST_BIAS)] * (groups * classes)
    weight, bias = (each.view(shape) for each in _least(loss, both.double(), ends).chunk(2))
    return Vector(pooling, weight.exp(), bias)


def fit_platt(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Platt:
    """Return the sigmoid of each class against the others, by scikit-learn's logistic regression.

    The targets are Platt's: not 1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2) for n examples of
    either kind, so that classes that are told apart have no infinite slope.
    """
    from sklearn.linear_model import LogisticRegression

    def sigmoid(odds: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = np.bincount(true, minlength=2)
        high, low = (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2)
        share = np.where(true == 1, high, low)
        # A target between is an example of both, each counting its share.
        twice = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
            np.concatenate([odds, odds])[:, None],
            np.repeat([1, 0], len(odds)),
            np.concatenate([share, 1 - share]),
        )
        return twice.coef_[0], twice.intercept_

    scores = log_odds(_given(logits, pooling), 2)
    fitted = _one_against_rest(scores, labels, sigmoid, per_member=per_member)
    slope, bias = (torch.stack([torch.stack(each) for each in part])[..., 0] for part in fitted)
    if scores.shape[2] == 2:  # the odds of the other class are these with another sign
        slope, bias = torch.cat([slope, slope], 1), torch.cat([-bias, bias], 1)
    return Platt(pooling, slope, bias)


def fit_isotonic(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Isotonic:
    """Return the rising function of each class's probability, by scikit-learn.

    Its values are kept between 1 / (n + 2) and 1 - 1 / (n + 2) of n examples (Laplace's rule of
    succession), since a class that n examples do not show is not impossible.
    """
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(labels) + 2)

    def steps(probs: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # As the calibrator looks them up, so that none falls on the other side of a threshold.
        rising = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
        rising.fit(probs.astype(np.float32).astype(np.float64), true)
        return rising.X_thresholds_, rising.y_thresholds_

    probs = _given(logits, pooling).softmax(2)
    thresholds, values = _one_against_rest(probs, labels, steps, per_member=per_member)
    if probs.shape[2] == 2:
        thresholds = [[1 - one[0].flip(0), one[0]] for one in thresholds]
        values = [[1 - one[0].flip(0), one[0]] for one in values]
    longest = max(2, *(len(one) for own in thresholds for one in own))

    def stacked(parts: list[list[Tensor]], fill: float | None) -> Tensor:
        own = ([_filled(one, longest, fill) for one in each] for each in parts)
        return torch.stack([torch.stack(each) for each in own])

    return Isotonic(pooling, stacked(thresholds, float("inf")), stacked(values, None))


FITS: dict[str, Callable[..., Calibrator]] = {
    "temperature": fit_temperature,
    "vector": fit_vector,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def _given(logits: Tensor, pooling: Pooling) -> Tensor:
    return pooled(logits).unsqueeze(1) if pooling == "after" else logits


def _one_against_rest(
    scores: Tensor,
    labels: Tensor,
    fit: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    *,
    per_member: bool,
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Fit each class, of two the second alone, on all members' scores or on each member's own.

    Args:
        scores: ``[examples, members, classes]``.
        labels: ``[examples]``.
        fit: from scores and whether the class is the true one to two arrays.
        per_member: whether each member has its own.

    Returns:
        The first and the second arrays, member by member and class by class.
    """
    members, classes = scores.shape[1:]
    groups = [[member] for member in range(members)] if per_member else [list(range(members))]
    first, second = [], []
    for group in groups:
        found = []
        for number in range(classes) if classes > 2 else (1,):
            own = scores[:, group, number].t().reshape(-1).numpy()
            true = (labels == number).long().repeat(len(group)).numpy()
            found.append([torch.from_numpy(np.array(each)) for each in fit(own, true)])
        first.append([one for one, _ in found])
        second.append([other for _, other in found])
    return first, second


def _filled(values: Tensor, length: int, fill: float | None) -> Tensor:
    """Return numbers lengthened by ``fill``, or by the last of them."""
    more = values[-1:] if fill is None else torch.full((1,), fill, dtype=values.dtype)
    return torch.cat([values, more.expand(length - len(values))])


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the NLL of the mean of these members, ``[examples, members, classes]``."""
    log_probs = logits.gather(2, labels.view(-1, 1, 1).expand(-1, logits.shape[1], 1))[..., 0]
    log_probs = log_probs - logits.logsumexp(2)
    members = float(np.log(logits.shape[1]))
    return -(log_probs.logsumexp(1) - members).mean()


def _least(
    loss: Callable[[Tensor], Tensor], start: Tensor, bounds: list[tuple[float, float]]
) -> Tensor:
    """Return where a loss is least, by L-BFGS-B; never worse than the start."""

    def value_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(values.copy()).requires_grad_()
        found = loss(parameters)
        (slope,) = torch.autograd.grad(found, parameters)
        return float(found.detach()), slope.numpy()

    found = minimize(
        value_and_slope, start.numpy(), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 200, "ftol": 1e-10, "gtol": 1e-7},
    )  # fmt: skip
    better = found.fun <= value_and_slope(start.numpy())[0]
    return torch.from_numpy(np.asarray(found.x)) if better else start
