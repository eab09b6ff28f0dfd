"""A decision about a saved model as sentences for the terminal."""

from __future__ import annotations

import math

import numpy as np

from batchensemble.cli.workflows.decision import Decision, DecisionCheck
from batchensemble.core.printed_tables import formatted
from batchensemble.decisions import ConformalIntervals, ConformalSets, Threshold
from batchensemble.decisions.conformal.quantile import least_examples


def in_words(decision: Decision) -> list[tuple[str, str]]:
    """Return the parts of a decision as pairs of title and text.

    Args:
        decision: a decision about a model of classes or of numbers.

    Example:
        >>> from batchensemble.cli.workflows.decision import smallest_sets
        >>> import numpy as np
        >>> sets = smallest_sets(0.9)
        >>> sets.thresholds_ = np.array([0.6, 0.6])
        >>> found = Threshold("total", 0.25, 0.8, 0.0125, 0.04, 0.05, 0.95, 100)
        >>> for title, text in in_words(Decision("", "", 100, found, sets, None, 1.2, 0.8)):
        ...     print(f"{title}: {text}")
        Answer: if the total uncertainty is below 0.25 nats: 80 of 100 examples (80.0%), of \
which 1 is wrong (1.2%). On new examples of this kind at most 4.0% of the answers are wrong, \
with 95% confidence.
        Sets: all classes with a probability of at least 0.4; they contain the true class for 90% \
of new examples of this kind. Mean size 1.20; 80.0% of the sets have one class.
    """
    parts = []
    if decision.threshold is not None:
        parts.append(("Answer", _threshold(decision.threshold, decision.intervals is not None)))
    elif decision.intervals is not None:
        parts.append(
            (
                "Answer",
                "no threshold yet: give the largest acceptable error, in the unit of the target, "
                "with --tolerance X.",
            )
        )
    if decision.sets is not None:
        parts.append(("Sets", _sets(decision, decision.sets)))
    if decision.intervals is not None:
        parts.append(("Intervals", _intervals(decision, decision.intervals)))
    if decision.check is not None:
        parts.append(("Check", _check(decision, decision.check)))
    return [*parts, *(("Note", each) for each in decision.notes)]


def guarantee(decision: Decision) -> str:
    """Return the guarantee of the columns that ``predict`` adds, in a sentence.

    Args:
        decision: a decision about a model of classes or of numbers.
    """
    parts = []
    found = decision.threshold
    if found is not None and found.found:
        parts.append(
            f"at most {_percent(found.target)} of the answered rows are {_wrong(found)}, with "
            f"{_percent(found.confidence)} confidence"
        )
    elif found is not None:
        parts.append("no row is answered, since no threshold was found")
    if decision.sets is not None:
        each = "each class" if decision.sets.by_class else "them"
        share = _percent(decision.sets.confidence)
        parts.append(f"the set contains the true class for {share} of {each}")
    if decision.intervals is not None:
        share = _percent(decision.intervals.confidence)
        parts.append(
            f"conformal_lower to conformal_upper contains the true number for {share} of them"
        )
    return f"For rows like the {decision.data}: {'; '.join(parts)}."


def _threshold(found: Threshold, numbers: bool) -> str:
    examples, sure = found.examples, _percent(found.confidence)
    if not found.found:
        return (
            f"none. No threshold on the {_name(found.by)} keeps the share of answers that are "
            f"{_wrong(found)} at or below {_percent(found.target)} with {sure} confidence: the "
            f"lowest upper bound of those tried on these {examples:,} examples is "
            f"{found.bound:.1%}. Allow more with --risk{' or --tolerance' if numbers else ''}, or "
            "give more rows with --data."
        )
    answered = round(found.coverage * examples)
    off = round(found.risk * answered)
    condition = "always" if math.isinf(found.value) else f"if the {_name(found.by)} is below "
    if not math.isinf(found.value):
        condition += _value(found, numbers)
    return (
        f"{condition}: {answered:,} of {examples:,} examples ({found.coverage:.1%}), of which "
        f"{off:,} {'is' if off == 1 else 'are'} {_wrong(found)} ({found.risk:.1%}). On new "
        f"examples of this kind at most {found.bound:.1%} of the answers are {_wrong(found)}, with "
        f"{sure} confidence."
    )


def _value(found: Threshold, numbers: bool) -> str:
    if not numbers:
        return f"{found.value:.4g}{'' if found.by == 'confidence' else ' nats'}"
    return f"{formatted(found.value)} (a standard deviation of {formatted(math.sqrt(found.value))})"


def _name(by: str) -> str:
    return "uncertainty (1 - confidence)" if by == "confidence" else f"{by} uncertainty"


def _wrong(found: Threshold) -> str:
    return "wrong" if found.tolerance is None else f"off by more than {found.tolerance:g}"


def _sets(decision: Decision, sets: ConformalSets) -> str:
    assert sets.thresholds_ is not None
    least = 1 - sets.thresholds_
    if np.isinf(least).all():
        return _too_few(decision, sets.confidence, "every set contains every class")
    above, examples = f"at least {least.max():.3g}", "new examples of this kind"
    if sets.by_class:
        low = max(float(least.min()), 0.0)
        above = f"at least {low:.3g} to {least.max():.3g}, by class"
        examples = "the new examples of each class"
    return (
        f"all classes with a probability of {above}; they contain the true "
        f"class for {_percent(sets.confidence)} of {examples}. Mean size "
        f"{decision.mean_size:.2f}; {decision.share_of_one:.1%} of the sets have one class."
    )


def _intervals(decision: Decision, intervals: ConformalIntervals) -> str:
    width = intervals.quantile_
    if math.isinf(width):
        return _too_few(decision, intervals.confidence, "every interval is infinite")
    what = {
        "absolute": f"the mean ± {formatted(width)}",
        "normalised": f"the mean ± {width:.4g} standard deviations",
        "quantiles": "the model's own interval, each end moved "
        f"{'in' if width < 0 else 'out'}wards by {formatted(abs(width))},",
    }[intervals.method_ or "absolute"]
    return (
        f"{what} contains the true number for {_percent(intervals.confidence)} of new examples of "
        f"this kind. Mean width {formatted(decision.mean_size)}."
    )


def _check(decision: Decision, check: DecisionCheck) -> str:
    """Return what a decision does on examples that it was not fitted on."""
    parts, found = [], decision.threshold
    if found is not None and found.found and check.answered is not None:
        answered = f"{check.answered:.1%} are answered"
        if check.risk is not None:
            answered += f", of which {check.risk:.1%} are {_wrong(found)}"
        parts.append(answered)
    if decision.sets is not None:
        what, size = "sets contain the true class", f"mean size {check.mean_size:.2f}"
    else:
        what, size = "intervals contain the true number", f"mean width {formatted(check.mean_size)}"
    parts.append(f"{check.covered:.1%} of the {what} ({size})")
    return (
        f"on the {check.examples:,} held-out examples, which were used for nothing else, "
        f"{'; '.join(parts)}."
    )


def _too_few(decision: Decision, confidence: float, then: str) -> str:
    return (
        f"{_percent(confidence)} needs at least {least_examples(confidence)} examples, got "
        f"{decision.examples:,}, so {then}. Give more rows with --data."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
