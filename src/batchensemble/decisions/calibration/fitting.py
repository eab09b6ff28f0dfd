"""Fitting of calibrators, in float64 on a CPU, by SciPy and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from batchensemble.ensembles.calibrators import (
    Calibrator,
    Isotonic,
    Platt,
    Pooling,
    Temperature,
    Vector,
    log_odds,
    log_of,
)

# Distance of the bounds of log T from the log of the logits' spread: at ten thousand spreads all
# classes are equally probable, at a ten-thousandth the first class is certain.
REACH = float(np.log(1e4))
TEMPERATURE_GRID = 41  # temperatures that are tried before the search
LARGEST_BIAS = 20.0


def nll(calibrator: Calibrator | None, logits: Tensor, labels: Tensor) -> float:
    """Return the mean negative log-likelihood of the ensemble's probabilities, nats.

    Args:
        calibrator: the calibrator to apply; ``None`` for the uncalibrated probabilities.
        logits: the members' logits, ``[examples, members, classes]``, float64.
        labels: the true class numbers, ``[examples]``.
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


@dataclass(frozen=True)
class Common:
    """The common temperature of all members.

    Attributes:
        log: logarithm of the temperature.
        bounds: bounds of that logarithm, around the log of the logits' spread; equal if the logits
            are.
        end: ``"cold"`` or ``"hot"`` if the optimum is at a bound, ``"none"`` if the logits are
            equal, otherwise empty.
    """

    log: float
    bounds: tuple[float, float]
    end: str


def fit_temperature(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Temperature:
    """Return the temperature with the least NLL of the ensemble's probabilities.

    After the mean the NLL is convex in 1 / T, so it has one minimum, which Brent's method finds on
    log T. Before it the NLL is that of a mixture, and not convex: the search starts from the best
    of a grid, so that no temperature of the grid, which includes 1, is better than the result.
    Temperatures of each member start from the common one. The bounds are relative to the spread of
    the logits.

    Args:
        logits: the members' logits, ``[examples, members, classes]``, float64.
        labels: the true class numbers, ``[examples]``.
        pooling: ``"before"`` or ``"after"`` averaging.
        per_member: whether each member has its own temperature; false by default.

    Warns:
        UserWarning: the optimum is certainty or equal probabilities, or is not determined.
    """
    common = _common(logits, labels, pooling)
    members = logits.shape[1] if per_member else 1
    if common.end in ("cold", "none"):
        _warn(_cannot_tell(common, logits, labels, pooling))
        return Temperature(pooling, torch.ones(members))
    if common.end == "hot":
        _warn(
            "the calibration data say that the network's outputs are uninformative: the likelihood "
            "is highest for equal probabilities (an infinite temperature), and "
            f"{np.exp(common.log):.3g}, which nearly gives them, is used; check that the labels "
            "are in the order of the outputs, and that the network is trained"
        )
    if not per_member:
        return Temperature(pooling, torch.tensor([common.log], dtype=torch.float64).exp())
    start = torch.full((members,), common.log, dtype=torch.float64)

    def loss(log_temperatures: Tensor) -> Tensor:
        return _loss(logits / log_temperatures.exp().view(-1, 1), labels)

    own = _least(loss, start, [common.bounds] * members)
    low, high = common.bounds
    ended = [index for index, each in enumerate(own.tolist()) if not low < each < high]
    if ended and common.end != "hot":
        of = ", ".join(f"{own[index].exp():.3g} of member {index}" for index in ended)
        _warn(
            f"the likelihood of the calibration data increases beyond the bounds of the "
            f"temperature, where these stopped: {of}; use per_member=False, or give more data"
        )
    return Temperature(pooling, own.exp())


def _common(logits: Tensor, labels: Tensor, pooling: Pooling) -> Common:
    """Return the common temperature of all members."""
    given = _given(logits, pooling)
    spread = float((given - given.mean(2, keepdim=True)).square().mean().sqrt())
    largest = float(given.abs().max())
    if spread <= torch.finfo(torch.float32).eps * largest or spread == 0:
        return Common(0.0, (0.0, 0.0), "none")

    def value(log_temperature: float) -> float:
        return float(_loss(given / np.exp(log_temperature), labels))

    bounds = float(np.log(spread)) - REACH, float(np.log(spread)) + REACH
    grid = np.union1d(np.linspace(*bounds, TEMPERATURE_GRID), [0.0])
    bounds = float(grid[0]), float(grid[-1])
    best = int(np.argmin([value(each) for each in grid]))
    if best in (0, len(grid) - 1):
        return Common(float(grid[best]), bounds, "cold" if best == 0 else "hot")
    around = grid[best - 1], grid[best + 1]
    found = minimize_scalar(value, bounds=around, method="bounded", options={"xatol": 1e-7})
    return Common(float(found.x if found.fun <= value(grid[best]) else grid[best]), bounds, "")


def _cannot_tell(
    common: Common,
    logits: Tensor,
    labels: Tensor,
    pooling: Pooling,
    what: str = "the temperature, and 1 is kept",
) -> str:
    """Return a warning that the data do not determine the temperature.

    Args:
        common: the common temperature that was found.
        logits: the members' logits, ``[examples, members, classes]``.
        labels: the true class numbers, ``[examples]``.
        pooling: ``"before"`` or ``"after"`` averaging.
        what: what is not determined, and what is done.
    """
    if common.end == "none":
        return (
            "the network's outputs are the same for all classes, up to rounding, so no calibration "
            f"data can determine {what}; check that the network is trained"
        )
    given = _given(logits, pooling)
    true = given.gather(2, labels.view(-1, 1, 1).expand(-1, given.shape[1], 1))[..., 0]
    first = true >= given.amax(2)
    who = "at least one member" if given.shape[1] > 1 else "the ensemble"
    if given.shape[1] > 1 and first.all():
        who = "every member"
    return (
        f"{who} predicts all {len(labels)} calibration examples correctly, so the likelihood is "
        f"highest for certainty (temperature 0) and they cannot determine {what}; give more data"
    )


def _warn(sentence: str) -> None:
    """Warn where the user called ``calibrate``."""
    warnings.warn(sentence, stacklevel=5)


def fit_vector(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Vector:
    """Return the weights and biases with the least NLL of the ensemble's probabilities.

    L-BFGS-B starts from the temperature's solution. After the mean the NLL is convex, a logistic
    regression on the log-probabilities; before it, it is not.

    Warns:
        UserWarning: the optimum is certainty, and 1 is kept.
    """
    given = _given(logits, pooling)
    groups, classes = (logits.shape[1] if per_member else 1), logits.shape[2]
    log_probs = given.log_softmax(2)
    shape = (groups, classes)
    common = _common(logits, labels, pooling)
    if common.end == "cold":
        what = "the weights of the classes, and 1 is kept"
        _warn(_cannot_tell(common, logits, labels, pooling, what))
        return Vector(pooling, torch.ones(shape), torch.zeros(shape))
    start = torch.full((groups * classes,), -common.log, dtype=torch.float64)
    both = torch.cat([start, torch.zeros_like(start)])

    def loss(parameters: Tensor) -> Tensor:
        weight, bias = (each.view(shape) for each in parameters.chunk(2))
        return _loss(log_probs * weight.exp() + bias, labels)

    colder, hotter = common.bounds
    ends = [(-hotter, -colder)] * len(start) + [(-LARGEST_BIAS, LARGEST_BIAS)] * len(start)
    weight, bias = (each.view(shape) for each in _least(loss, both, ends).chunk(2))
    return Vector(pooling, weight.exp(), bias)


def fit_platt(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Platt:
    """Return the sigmoid of each class against the others, by scikit-learn's logistic regression.

    The targets are Platt's: not 1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2) for n examples of
    either kind, so that the slope of separable classes is finite.
    """
    from sklearn.linear_model import LogisticRegression

    def sigmoid(odds: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = np.bincount(true, minlength=2)
        high, low = (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2)
        share = np.where(true == 1, high, low)
        spread = float(odds.std()) or 1.0  # the solver expects standardised inputs
        # A target between 0 and 1 is an example of both classes, weighted by its share.
        twice = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
            np.concatenate([odds, odds])[:, None] / spread,
            np.repeat([1, 0], len(odds)),
            np.concatenate([share, 1 - share]),
        )
        return twice.coef_[0] / spread, twice.intercept_

    scores = log_odds(_given(logits, pooling), 2)
    fitted = _one_against_rest(scores, labels, sigmoid, per_member=per_member)
    slope, bias = (torch.stack([torch.stack(each) for each in part])[..., 0] for part in fitted)
    if scores.shape[2] == 2:  # the odds of the other class are these with another sign
        slope, bias = torch.cat([slope, slope], 1), torch.cat([-bias, bias], 1)
    return Platt(pooling, slope, bias)


def fit_isotonic(
    logits: Tensor, labels: Tensor, pooling: Pooling, *, per_member: bool = False
) -> Isotonic:
    """Return the isotonic regression of each class's probability, by scikit-learn.

    Its values are clipped to 1 / (n + 2) and 1 - 1 / (n + 2) for n examples (Laplace's rule of
    succession), since a class that n examples do not contain is not impossible.
    """
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(labels) + 2)

    def steps(probs: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # In the precision of the calibrator, so that none falls on the other side of a threshold.
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
    """Fit each class (with two, only the second) on all members' scores or each member's own.

    Args:
        scores: ``[examples, members, classes]``.
        labels: ``[examples]``.
        fit: function from scores and whether the class is the true one to two arrays.
        per_member: whether each member has its own fit.

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
    """Return numbers extended by ``fill``, or by the last of them."""
    more = values[-1:] if fill is None else torch.full((1,), fill, dtype=values.dtype)
    return torch.cat([values, more.expand(length - len(values))])


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the NLL of the members' mean, from logits ``[examples, members, classes]``."""
    log_probs = logits.gather(2, labels.view(-1, 1, 1).expand(-1, logits.shape[1], 1))[..., 0]
    log_probs = log_probs - logits.logsumexp(2)
    members = float(np.log(logits.shape[1]))
    return -(log_probs.logsumexp(1) - members).mean()


def _least(
    loss: Callable[[Tensor], Tensor], start: Tensor, bounds: list[tuple[float, float]]
) -> Tensor:
    """Return the minimum of a loss by L-BFGS-B; never worse than the start."""

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
