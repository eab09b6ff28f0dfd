"""Is this ensemble practically a single model? For BatchEnsemble it can be either, run by run.

Zamyatin et al. 2026, arXiv 2601.16936, find BatchEnsemble close to one network in accuracy,
calibration and detection on CIFAR-10, and its members nearly the same function on MNIST. Whether
that holds for a given run can be measured.
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

# The gain of averaging grows with the diversity of the members (Krogh and Vedelsby 1995): with a
# tenth of the diversity of independent networks, at most about a tenth of their gain is possible.
ALIKE_SHARE = 0.1
# The error rate is only an upper bound of the disagreement of independent networks, since noisy
# labels cause errors without disagreement: on noisy moons a deep ensemble's members disagree 0.13
# times as often as they err (docs/pictures/uncertainty.py). A tenth of that is little there, too.
ALIKE_BY_ERRORS = 0.01
# If none of n cases was observed, their rate may still be 3 / n (Hanley and Lippman-Hand 1983).
RULE_OF_THREE = 3
FEWEST = 10  # cases that an interval needs


@dataclass(frozen=True)
class OneModel:
    """Whether an ensemble is practically a single model, and the evidence.

    Attributes:
        answer: ``"one model"``, ``"ensemble"``, or ``"undecided"`` if the examples do not tell.
        difference: disagreement of two members, relative to that of two independent networks: 0 is
            one model, 1 independent networks.
        low, high: ends of its interval; the upper one is at least 3 / n, with n the number of
            examples on which independent networks disagree, so that few examples decide nothing.
        compared_with: the reference for independent networks, ``"deep ensemble"`` or ``"error
            rate"``.
        disagreement: how often two members predict different classes, 0 to 1.
        epistemic_share: mean epistemic uncertainty, relative to the deep ensemble's; NaN without
            one.
        averaging_gain: the members' mean NLL minus that of the ensemble, nats, at least 0.
        gain, gain_low, gain_high: one network's NLL minus the ensemble's, nats, and the ends of its
            interval; NaN without ``single``.
        share: share of the deep ensemble's gain over one network; ``None`` without ``single`` or
            ``deep``.
        verdict: the answer and its evidence in a sentence.
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
    """Return whether an ensemble is practically a single model, on the given examples.

    It is one if its members disagree less than a tenth (``ALIKE``) as often as a deep ensemble's,
    or if it has less than a tenth of the deep ensemble's gain over ``single``, where that is
    significant. It is an ensemble if its members disagree more often and, if ``single`` is given,
    it is significantly better than that. Each must hold for the whole interval; otherwise the
    answer is ``"undecided"``.

    Without a deep ensemble the reference is the members' error rate, since two trainings of one
    network disagree about as often as one of them is wrong, if the labels are clean (Jiang et al.
    2022, arXiv 2106.13799). Noisy labels cause errors without disagreement, so then the answer is
    ``"one model"`` only below a hundredth, and undecided between that and a tenth.

    Args:
        prediction: prediction of the ensemble in question.
        labels: the true class numbers, ``[examples]``, of examples that no training used.
        single: prediction of one network with the same training, on the same examples; none by
            default.
        deep: prediction of a deep ensemble on the same examples; none by default.
        level: level of the intervals, 0.95 by default.
        resamples: number of bootstrap resamples, 1,000 by default.
        seed: seed of the random draws, 0 by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the labels do not fit, ``single`` has several members, or ``deep`` has one.

    Example:
        >>> alike = Prediction(np.tile([[[0.6, 0.4]] * 4], (900, 1, 1)))
        >>> found = is_one_model(alike, np.arange(900) % 2)
        >>> found.answer, found.difference
        ('one model', 0.0)
        >>> found.verdict.split(", ")[0]
        'One model: two members disagree on 0 of the examples'
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
    rate = f"{independent.mean():.2g}"
    reference = (
        f"times as often as the deep ensemble's ({rate})"
        if deep is not None
        else f"times as often as a member is wrong ({rate})"
    )
    verdict = (
        f"{answer.capitalize()}: two members disagree on {ours.mean():.2g} of the examples, "
        f"{_written(difference)} {reference}{but}."
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
    """Return the answer, and the rest of the sentence."""
    _, low, high = difference
    limit = ALIKE_BY_ERRORS if by_errors else ALIKE_SHARE
    if members == 1:
        return "one model", "; it has one member"
    if cases < FEWEST:
        return "undecided", f"; that is {cases:.3g} examples, too few to tell"
    if high < limit:
        better = f"; its NLL is {_written(gain)} nats below one network's, but not by averaging"
        return "one model", better if gain[1] > 0 else ""
    if low < ALIKE_SHARE:
        more = "a deep ensemble" if by_errors else "more examples"
        return (
            "undecided",
            f"; below {limit:g} is one model, above {ALIKE_SHARE:g} an ensemble: {more} would "
            "decide",
        )
    if share is not None and share.reason:
        return "ensemble", f"; {share.reason}"
    if share is not None and share.high < ALIKE_SHARE:
        brought = _written((share.share, share.low, share.high))
        return "one model", f"; but it has only {brought} of the deep ensemble's gain"
    if math.isnan(gain[0]):
        return "ensemble", ""
    if gain[1] > 0:
        return "ensemble", f"; its NLL is {_written(gain)} nats below one network's"
    return (
        "undecided",
        f"; but its gain over one network is {_written(gain)} nats, not significantly above 0",
    )


def _written(ends: Ends) -> str:
    value, low, high = ends
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def _ratio(ours: np.ndarray, independent: np.ndarray, drawn: np.ndarray, level: float) -> Ends:
    """Return the ratio of two rates with its interval; NaN if the second is 0."""
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
