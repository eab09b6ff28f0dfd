"""How much of a deep ensemble's gain over one network an ensemble brings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from batchensemble.metrics.bootstrap import LEVEL, RESAMPLES, Contributions, bootstrap, middle
from batchensemble.metrics.labels import Labels
from batchensemble.metrics.losses_by_example import UNITS, Loss, losses_by_example
from batchensemble.predictions import Prediction

Several = Prediction | Sequence[Prediction]


@dataclass(frozen=True)
class ShareOfGain:
    """Which share of a deep ensemble's gain over one network an ensemble brings.

    Attributes:
        share: ``gain / deep_gain``: 0 is one network, 1 the deep ensemble, below 0 is worse than
            one network, above 1 better than the deep ensemble. NaN where it is not defined.
        low, high: the ends of its interval; NaN where it is not defined.
        gain: one network's loss less the ensemble's.
        gain_low, gain_high: the ends of its interval.
        deep_gain: one network's loss less the deep ensemble's.
        deep_low, deep_high: the ends of its interval.
        level: of the intervals.
        reason: why the share is not defined, a sentence; empty where it is.
    """

    share: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    deep_gain: float
    deep_low: float
    deep_high: float
    level: float
    reason: str


def share_of_gain(
    single: Several,
    ours: Several,
    deep: Several,
    labels: Any,
    score: Loss = "nll",
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ShareOfGain:
    """Return (single − ours) / (single − deep) of a score, with a paired bootstrap interval.

    The examples are drawn anew, the same ones for all three, and so are the seeds where there are
    several, see :func:`batchensemble.metrics.bootstrap.bootstrap`. The ends are quantiles of the
    draws. Where the deep ensemble's own gain is within noise of 0, or below, there is nothing to
    have a
    share of: the share is NaN, and ``reason`` says so.

    Args:
        single: one network's prediction, or one a seed.
        ours: the ensemble's, as many.
        deep: the deep ensemble's, as many.
        labels: the true class numbers, ``[examples]``, the same for all.
        score: ``"nll"``, ``"brier"``, ``"error"`` or ``"auroc"``, see :func:`losses_by_example`;
            of each, less is better.
        level: of the intervals.
        resamples: how many draws.
        seed: of the draws.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: ``single`` has several members, the numbers of predictions differ, or an
            argument is out of range.

    Example:
        >>> sure = [Prediction(np.tile([[[p, 1 - p]]], (50, 1, 1))) for p in (0.5, 0.6, 0.7)]
        >>> one, four, best = sure
        >>> round(share_of_gain(one, four, best, np.zeros(50, int)).share, 4)
        0.5419
        >>> share_of_gain(one, four, one, np.zeros(50, int)).reason
        'the deep ensemble gains 0 [0, 0] nats over one network, within noise of nothing'
    """
    of_single = losses_by_seed("single", single, labels, score)
    for prediction in _list(single):
        check_one_network(prediction)
    of_ours = losses_by_seed("ours", ours, labels, score)
    of_deep = losses_by_seed("deep", deep, labels, score)
    if not len(of_single) == len(of_ours) == len(of_deep):
        raise ValueError(
            "single, ours and deep must have as many predictions, one a seed, got "
            f"{len(of_single)}, {len(of_ours)} and {len(of_deep)}"
        )
    gains = [Contributions((of_single - each)[..., None]) for each in (of_ours, of_deep)]
    drawn = bootstrap(gains, resamples=resamples, seed=seed)
    gain, deep_gain = (each.score for each in gains)
    gain_ends, deep_ends = (middle(each, level) for each in drawn)
    share = low = high = math.nan
    reason = ""
    if math.isnan(gain + deep_gain):
        reason = "there is no AUROC where none or all of the predictions are wrong"
    elif deep_ends[0] > 0:
        share = gain / deep_gain
        # A draw in which the deep ensemble gains nothing has no share; there are few of them.
        sound = drawn[1] > 0
        low, high = middle(drawn[0, sound] / drawn[1, sound], level)
    else:
        verdict = "within noise of nothing" if deep_ends[1] >= 0 else "it is worse"
        reason = (
            f"the deep ensemble gains {deep_gain:.3g} [{deep_ends[0]:.3g}, {deep_ends[1]:.3g}] "
            f"{UNITS[score]} over one network, {verdict}"
        )
    return ShareOfGain(share, low, high, gain, *gain_ends, deep_gain, *deep_ends, level, reason)


def losses_by_seed(
    name: str, predictions: Several, labels: Labels, score: Loss
) -> Float[np.ndarray, "seeds examples"]:
    """Return the losses of one prediction, or of one a seed.

    Raises:
        ValueError: there is none.
    """
    several = _list(predictions)
    if not several:
        raise ValueError(f"{name} must be at least one prediction, got none")
    return np.stack([losses_by_example(each, labels, score) for each in several])


def check_one_network(single: Prediction) -> None:
    """Check that what gains are counted from is one network.

    Raises:
        ValueError: it has several members.
    """
    if single.members != 1:
        raise ValueError(
            f"single must be the prediction of one network, got {single.members} members"
        )


def check_several_members(deep: Prediction) -> None:
    """Check that what is called a deep ensemble can be one.

    Raises:
        ValueError: it has one member.
    """
    if deep.members < 2:
        raise ValueError(
            "deep must be the prediction of a deep ensemble of at least 2 members, got 1; leave it "
            "out if there is none"
        )


def _list(predictions: Several) -> list[Prediction]:
    return [predictions] if isinstance(predictions, Prediction) else list(predictions)
