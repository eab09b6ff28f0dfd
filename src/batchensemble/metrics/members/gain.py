"""An ensemble's share of the deep ensemble's gain over one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from batchensemble.metrics.bootstrap import LEVEL, RESAMPLES, Contributions, bootstrap, middle
from batchensemble.metrics.labels import Labels
from batchensemble.metrics.losses_by_example import UNITS, ScoreName, losses_by_example
from batchensemble.predictions import Prediction

Several = Prediction | Sequence[Prediction]


@dataclass(frozen=True)
class ShareOfGain:
    """An ensemble's share of a deep ensemble's gain over one network.

    Gains are in the score's unit.

    Attributes:
        share: ``gain / deep_gain``: 0 is one network, 1 the deep ensemble, below 0 worse than one
            network, above 1 better than the deep ensemble. NaN if it is not defined.
        low, high: ends of its interval; NaN if it is not defined.
        gain: one network's loss minus the ensemble's.
        gain_low, gain_high: ends of its interval.
        deep_gain: one network's loss minus the deep ensemble's.
        deep_low, deep_high: ends of its interval.
        level: level of the intervals, 0 to 1.
        reason: a sentence on why the share is not defined; empty if it is.
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
    score: ScoreName = "nll",
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ShareOfGain:
    """Return (single − ours) / (single − deep) of a score, with a paired bootstrap interval.

    Examples are resampled, the same for all three, and so are seeds if there are several, see
    :func:`batchensemble.metrics.bootstrap.bootstrap`; the ends of the interval are quantiles. If
    the deep ensemble's own gain is not significantly above 0, the share is not defined: it is NaN,
    and ``reason`` says so.

    Args:
        single: prediction of one network, or one for each seed.
        ours: prediction of the ensemble, or one for each seed.
        deep: prediction of the deep ensemble, or one for each seed.
        labels: the true class numbers, ``[examples]``, the same for all.
        score: the loss: ``"nll"`` (the default), ``"brier"``, ``"error"`` or ``"auroc"``, see
            :func:`losses_by_example`; lower is better.
        level: level of the intervals, 0.95 by default.
        resamples: number of bootstrap resamples, 1,000 by default.
        seed: seed of the random draws, 0 by default.

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
        "the deep ensemble's gain over one network, 0 [0, 0] nats, is not significant"
    """
    of_single = losses_by_seed("single", single, labels, score)
    for prediction in _list(single):
        check_one_network(prediction)
    of_ours = losses_by_seed("ours", ours, labels, score)
    of_deep = losses_by_seed("deep", deep, labels, score)
    if not len(of_single) == len(of_ours) == len(of_deep):
        raise ValueError(
            "single, ours and deep must have as many predictions, one for each seed, got "
            f"{len(of_single)}, {len(of_ours)} and {len(of_deep)}"
        )
    gains = [Contributions((of_single - each)[..., None]) for each in (of_ours, of_deep)]
    drawn = bootstrap(gains, resamples=resamples, seed=seed)
    gain, deep_gain = (each.score for each in gains)
    gain_ends, deep_ends = (middle(each, level) for each in drawn)
    share = low = high = math.nan
    reason = ""
    if math.isnan(gain + deep_gain):
        reason = "the AUROC is not defined if none or all of the predictions are wrong"
    elif deep_ends[0] > 0:
        share = gain / deep_gain
        # A resample without a gain of the deep ensemble has no share; there are few of them.
        sound = drawn[1] > 0
        low, high = middle(drawn[0, sound] / drawn[1, sound], level)
    else:
        verdict = "not significant" if deep_ends[1] >= 0 else "significantly negative"
        reason = (
            f"the deep ensemble's gain over one network, {deep_gain:.3g} [{deep_ends[0]:.3g}, "
            f"{deep_ends[1]:.3g}] {UNITS[score]}, is {verdict}"
        )
    return ShareOfGain(share, low, high, gain, *gain_ends, deep_gain, *deep_ends, level, reason)


def losses_by_seed(
    name: str, predictions: Several, labels: Labels, score: ScoreName
) -> Float[np.ndarray, "seeds examples"]:
    """Return the losses of one prediction, or of one for each seed.

    Raises:
        ValueError: there is no prediction.
    """
    several = _list(predictions)
    if not several:
        raise ValueError(f"{name} must be at least one prediction, got none")
    return np.stack([losses_by_example(each, labels, score) for each in several])


def check_one_network(single: Prediction) -> None:
    """Check that the baseline of a gain is one network.

    Raises:
        ValueError: it has several members.
    """
    if single.members != 1:
        raise ValueError(
            f"single must be the prediction of one network, got {single.members} members"
        )


def check_several_members(deep: Prediction) -> None:
    """Check that a deep ensemble has several members.

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
