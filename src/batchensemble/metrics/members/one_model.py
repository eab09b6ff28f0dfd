"""Is this ensemble a single model? Asked of each run, since for BatchEnsemble it can be either.

Zamyatin et al. 2026, arXiv 2601.16936, find BatchEnsemble close to one network in accuracy,
calibration and detection on CIFAR-10, and its members nearly the same function on MNIST. Whether
that holds for a run at hand can be counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from batchensemble.metrics.bootstrap import LEVEL, RESAMPLES, Contributions, bootstrap, middle
from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.losses_by_example import losses_by_example, negative_log
from batchensemble.metrics.members.diversity import disagreement_by_example
from batchensemble.metrics.members.gain import (
    ShareOfGain,
    check_one_network,
    check_several_members,
    share_of_gain,
)
from batchensemble.predictions import Prediction

OneModelAnswer = Literal["one model", "ensemble", "undecided"]
Ends = tuple[float, float, float]  # a number, and the ends of its interval

# What averaging gains grows with how far the members are apart (Krogh and Vedelsby 1995): with a
# tenth of what parts independent networks, at most about a tenth of their gain is to be had.
ALIKE = 0.1
# Errors only bound how often independent networks part, since labels that are wrong by chance part
# nobody: a deep ensemble's members on noisy moons part 0.13 times as often as they err, says
# docs/pictures/uncertainty.py. A tenth of that is few on such data, too.
ALIKE_BY_ERRORS = 0.01
# Where none of n cases was seen their rate may still be 3 / n (Hanley and Lippman-Hand 1983).
RULE_OF_THREE = 3
FEWEST = 10  # cases that an interval is taken seriously with


@dataclass(frozen=True)
class OneModel:
    """Whether an ensemble is a single model, and what that is judged by.

    Attributes:
        answer: ``"one model"``, ``"ensemble"``, or ``"undecided"`` where the examples do not tell.
        difference: how often two members name different classes, over how often two independent
            networks do: 0 is one model, 1 independent networks.
        low, high: the ends of its interval; the upper one is at least 3 / n of the n examples on
            which independent networks part, so that few examples show nothing.
        compared_with: what stands for independent networks, ``"deep ensemble"`` or ``"error
            rate"``.
        disagreement: how often two members name different classes, 0 to 1.
        epistemic_share: the mean epistemic uncertainty over the deep ensemble's; NaN without one.
        averaging_gain: the members' mean NLL less that of their mean, nats, at least 0: what
            averaging them brings.
        gain, gain_low, gain_high: one network's NLL less the ensemble's, nats, and the ends of its
            interval; NaN without ``single``.
        share: of the deep ensemble's gain over one network; ``None`` without both.
        verdict: all of it in one or two sentences.
    """

    answer: OneModelAnswer
    difference: float
    low: float
    high: float
    compared_with: str
    disagreement: float
    epistemic_share: float
    averaging_gain: float
    gain: float
    gain_low: float
    gain_high: float
    share: ShareOfGain | None
    verdict: str


def is_one_model(
    prediction: Prediction,
    labels: Any,
    *,
    single: Prediction | None = None,
    deep: Prediction | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> OneModel:
    """Return whether an ensemble is a single model, on the examples at hand.

    It is one if its members part less than a tenth (``ALIKE``) as often as a deep ensemble's. It is
    one as well if it brings less than a tenth of the deep ensemble's gain over ``single``, where
    there is a gain to bring. It is an ensemble if its members part more and, where ``single`` is
    given, it beats that. Each is to hold for the whole interval; else it is ``"undecided"``.

    Without a deep ensemble a member's errors stand for it, since two trainings of one network part
    about as often as one of them is wrong, if the labels are clean (Jiang et al. 2022, arXiv
    2106.13799). Noisy labels are errors that part nobody, so then it is one model only below a
    hundredth, and between that and a tenth a deep ensemble must tell.

    Args:
        prediction: of the ensemble in question.
        labels: the true class numbers, ``[examples]``, which no training saw.
        single: of one network, trained as well, for the same examples.
        deep: of a deep ensemble, for the same examples.
        level: of the intervals.
        resamples: draws of the bootstrap.
        seed: of the draws.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the labels do not fit, ``single`` has several members, or ``deep`` has one.

    Example:
        >>> alike = Prediction(np.tile([[[0.6, 0.4]] * 4], (900, 1, 1)))
        >>> found = is_one_model(alike, np.arange(900) % 2)
        >>> found.answer, found.difference
        ('one model', 0.0)
        >>> found.verdict.split(", ")[0]
        'One model: two members name different classes on 0 of the examples'
    """
    labels = checked_labels(prediction, labels)
    if single is not None:
        check_one_network(single)
    if deep is not None:
        check_several_members(deep)
        checked_labels(deep, labels)
    wrong = (prediction.member_probs.argmax(-1) != labels[:, None]).mean(1)
    ours = disagreement_by_example(prediction)
    independent = wrong if deep is None else disagreement_by_example(deep)
    rates = [Contributions(each[None, :, None]) for each in (ours, independent)]
    drawn = bootstrap(rates, resamples=resamples, seed=seed)
    difference = _ratio(ours, independent, drawn, level)
    gain = _gain(prediction, labels, single, level, resamples, seed)
    share = None
    if single is not None and deep is not None:
        share = share_of_gain(
            single, prediction, deep, labels, level=level, resamples=resamples, seed=seed
        )
    answer, but = _answer(
        prediction.members, float(independent.sum()), difference, gain, share, deep is None
    )
    name = "the deep ensemble's do" if deep is not None else "a member is wrong"
    verdict = (
        f"{answer.capitalize()}: two members name different classes on {ours.mean():.2g} of the "
        f"examples, {_written(difference)} times as often as independent networks "
        f"({name} on {independent.mean():.2g}){but}."
    )
    return OneModel(
        answer,
        *difference,
        "error rate" if deep is None else "deep ensemble",
        float(ours.mean()),
        _epistemic_share(prediction, deep),
        _averaging_gain(prediction, labels),
        *gain,
        share,
        verdict,
    )


def _answer(
    members: int,
    cases: float,
    difference: Ends,
    gain: Ends,
    share: ShareOfGain | None,
    by_errors: bool,
) -> tuple[OneModelAnswer, str]:
    """Return the answer, and what is to be said besides."""
    _, low, high = difference
    limit = ALIKE_BY_ERRORS if by_errors else ALIKE
    if members == 1:
        return "one model", "; it has one member"
    if cases < FEWEST:
        return "undecided", f"; that is {cases:.3g} examples, too few to tell"
    if high < limit:
        beats = f"; it beats one network by {_written(gain)} nats, but not by averaging"
        return "one model", beats if gain[1] > 0 else ""
    if low < ALIKE:
        more = "a deep ensemble" if by_errors else "more examples"
        return "undecided", f"; below {limit:g} it is one model, from {ALIKE:g} not: give {more}"
    if share is not None and share.reason:
        return "ensemble", f"; {share.reason}"
    if share is not None and share.high < ALIKE:
        brought = _written((share.share, share.low, share.high))
        return "one model", f"; yet they bring {brought} of the deep ensemble's gain"
    if math.isnan(gain[0]):
        return "ensemble", ""
    if gain[1] > 0:
        return "ensemble", f"; it beats one network by {_written(gain)} nats"
    return "undecided", f"; yet its gain over one network is {_written(gain)} nats"


def _written(ends: Ends) -> str:
    value, low, high = ends
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def _ratio(ours: np.ndarray, independent: np.ndarray, drawn: np.ndarray, level: float) -> Ends:
    """Return the ratio of two rates and its interval; NaN where the second is 0."""
    sound = drawn[1] > 0
    cases = float(independent.sum())
    if cases == 0 or not sound.any():
        return math.nan, math.nan, math.nan
    low, high = middle(drawn[0, sound] / drawn[1, sound], level)
    return float(ours.sum()) / cases, low, max(high, RULE_OF_THREE / cases)


def _gain(
    prediction: Prediction,
    labels: Labels,
    single: Prediction | None,
    level: float,
    resamples: int,
    seed: int,
) -> Ends:
    if single is None:
        return math.nan, math.nan, math.nan
    gains = losses_by_example(single, labels) - losses_by_example(prediction, labels)
    drawn = bootstrap([Contributions(gains[None, :, None])], resamples=resamples, seed=seed)
    return float(gains.mean()), *middle(drawn[0], level)


def _averaging_gain(prediction: Prediction, labels: Labels) -> float:
    of_truth = prediction.member_probs[np.arange(len(labels)), :, labels]
    alone = negative_log(of_truth).mean()
    return max(float(alone - losses_by_example(prediction, labels).mean()), 0.0)


def _epistemic_share(prediction: Prediction, deep: Prediction | None) -> float:
    if deep is None:
        return math.nan
    of_deep = float(deep.epistemic.mean())
    return float(prediction.epistemic.mean()) / of_deep if of_deep > 0 else math.nan
