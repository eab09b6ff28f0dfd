"""The verdict: the best method, its difference from the others, its cost and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from batchensemble.comparison.constant import constant_scores
from batchensemble.comparison.differences import Differences
from batchensemble.comparison.results import Comparison
from batchensemble.comparison.summary import (
    Column,
    Row,
    format_number,
    headline,
    quality,
)
from batchensemble.comparison.wording import capitalised, join_names, method_phrase
from batchensemble.core.printed_tables import formatted
from batchensemble.ensembles.methods import METHODS, baseline_among, independent_among
from batchensemble.metrics import one_class
from batchensemble.metrics.bootstrap import LEVEL
from batchensemble.metrics.members.one_model import OneModel, is_one_model
from batchensemble.metrics.values import (
    no_better_than_majority,
    no_better_than_mean,
    only_one_class,
)
from batchensemble.predictions import Prediction
from batchensemble.report.sections.calibrated import error_by_chance
from batchensemble.report.sections.tables import RMSE, signed

# Members whose accuracy is this much below the ensemble's were not trained to predict alone.
MEMBERS_FAR_BELOW = 0.05
# Below this share of the RMSE, members that predict numbers hardly differ.
SMALL_SHARE = 0.1
ANSWERS = {
    "one model": "Practically one model",
    "ensemble": "Yes",
    "undecided": "Undecided",
}


@dataclass(frozen=True)
class Answer:
    """One card of the verdict.

    Attributes:
        title: what it is about, such as ``"Calibration"``.
        short: the finding in a few words.
        text: the finding in a sentence, with its numbers.
    """

    title: str
    short: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison.

    Attributes:
        headline: the result in one or two sentences.
        method: the recommended method; ``None`` without a finished run. Among the best method and
            those not significantly different from it, the one that needs the least arithmetic per
            prediction.
        answers: the cards below the headline.
    """

    headline: str
    method: str | None
    answers: tuple[Answer, ...]


def verdict(comparison: Comparison, rows: Sequence[Row], differences: Differences) -> Verdict:
    """Return the result of a comparison, by the NLL or CRPS of its methods.

    Args:
        comparison: a comparison with any number of finished runs, also none.
        rows: its summary, from :func:`batchensemble.comparison.summary.summarise`.
        differences: its differences with intervals, from
            :func:`batchensemble.comparison.summary.compare_methods`.
    """
    if not rows:
        sentence = "No training finished, so there is nothing to compare."
        return Verdict(sentence, None, ())
    by = headline(comparison)
    chosen = min(_leading(by, rows), key=lambda row: row.cells["prediction_multiply_adds"].mean)
    answers = []
    if len(rows) > 1:
        other = _reference(by, rows, chosen)
        answers += [_difference(by, differences, chosen, other), _relative_cost(chosen, other)]
    answers += [_calibrated(comparison, chosen), *_members(comparison, rows, chosen)]
    remark = _remark(comparison, chosen.method)
    answers += [] if remark is None else [remark]
    return Verdict(_headline(by, comparison, rows, chosen), chosen.method, tuple(answers))


def remarks(comparison: Comparison) -> dict[str, str]:
    """Return a warning for each method that is no better than a constant prediction.

    One that predicts one class for every example has an accuracy that is the share of that class,
    and members that never disagree, which looks like certainty.
    """
    found = {method: _remark(comparison, method) for method in comparison.methods}
    return {method: each.text for method, each in found.items() if each is not None}


def _remark(comparison: Comparison, method: str) -> Answer | None:
    """Return the warning that a method is no better than a constant prediction, in all its runs."""
    constant, runs = constant_scores(comparison), comparison.of(method)
    names = comparison.data.class_names
    title, short = "Constant prediction", "As good"
    if comparison.data.task == "regression":
        rmse, of_mean = min(run.scores["rmse"] for run in runs), constant.scores["rmse"]
        if not rmse >= of_mean > 0:
            return None
        sentence = no_better_than_mean(rmse, of_mean, constant.prediction)
    else:
        accuracy, share = max(run.scores["accuracy"] for run in runs), constant.scores["accuracy"]
        named = {one_class(run.classes) for run in runs}
        if accuracy == 1 or accuracy > share:
            return None
        if len(named) == 1 and (only := named.pop()) is not None:
            title, short = "Predicted classes", "Only one"
            sentence = only_one_class(only, accuracy, names)
        else:
            most = int(np.bincount(comparison.data.held_out[1]).argmax())
            sentence = no_better_than_majority(accuracy, share, most, names)
    return Answer(title, short, f"{capitalised(method_phrase(method))}: {sentence}.")


def _leading(by: Column, rows: Sequence[Row]) -> list[Row]:
    """Return the best method and those not significantly different from it, the best first."""
    ranked = sorted(rows, key=lambda row: row.cells[by.key].mean)
    marked = [row for row in ranked if row.cells[by.key].best or row.cells[by.key].tied]
    # Without a mark all are equal to the digits shown, or the differences cannot be tested.
    return marked or ranked


def _reference(by: Column, rows: Sequence[Row], chosen: Row) -> Row:
    """Return what a method is compared with: the single network, or the best other method."""
    others = sorted(
        (row for row in rows if row is not chosen), key=lambda row: row.cells[by.key].mean
    )
    baseline = baseline_among(row.method for row in others)
    return next((row for row in others if row.method == baseline), others[0])


def _headline(by: Column, comparison: Comparison, rows: Sequence[Row], chosen: Row) -> str:
    examples = f"{len(comparison.data.held_out[0]):,} {comparison.data.scored}"
    unit, name = f" {by.unit}" if by.unit else "", capitalised(method_phrase(chosen.method))
    if len(rows) == 1:
        an = "a" if by.title.startswith("C") else "an"
        first = quality(comparison)[0]
        title = first.title if first.key == "rmse" else first.title.lower()
        other = f"{title} of {format_number(chosen.cells[first.key].mean, first)}"
        reached = f"{by.title} of {format_number(chosen.cells[by.key].mean, by)}{unit}"
        return f"{name} has {an} {reached} and an {other} on {examples}."
    leading = _leading(by, rows)
    numbers = {row.method: format_number(row.cells[by.key].mean, by) for row in leading}
    best, others = leading[0], leading[1:]
    winner = capitalised(method_phrase(best.method))
    lowest = f"{winner} has the lowest {by.title}, {numbers[best.method]}{unit} on {examples}"
    if not others:
        return f"{lowest}, significantly lower than every other method (95% intervals)."
    least = "needs the least arithmetic per prediction."
    if best.cells[by.key].tied:
        named = join_names(
            [f"{method_phrase(row.method)} ({numbers[row.method]})" for row in others]
        )
        verb = "is" if len(others) == 1 else "are"
        cheapest = (
            f"It also {least}"
            if chosen is best
            else f"Of these, {method_phrase(chosen.method)} {least}"
        )
        return f"{lowest}; {named} {verb} not significantly different. {cheapest}"
    if len(set(numbers.values())) == 1:
        same = f"{numbers[best.method]}{unit} on {examples}"
        return f"All methods have the same {by.title} to the digits shown, {same}. {name} {least}"
    return f"{lowest}, but the differences could not be tested. {name} {least}"


def _difference(by: Column, differences: Differences, row: Row, other: Row) -> Answer:
    title = f"Difference from {method_phrase(other.method)}"
    found = differences.between(by.key, row.method, other.method)
    if found is None:
        return Answer(title, "Unknown", "The two methods have no finished seed in common.")
    unit = f" {by.unit}" if by.unit else ""
    text = (
        f"{by.title} {signed(found.estimate, by)}{unit}, 95% interval {signed(found.low, by)} to "
        f"{signed(found.high, by)}."
    )
    if not found.significant:
        return Answer(title, "Not significant", text)
    direction = "lower" if found.estimate < 0 else "higher"
    short = f"{by.title} {format_number(abs(found.estimate), by)}{unit} {direction}"
    return Answer(title, short, f"{text} The difference is significant.")


def _relative_cost(row: Row, other: Row) -> Answer:
    def ratio(key: str) -> str:
        base = other.cells[key].mean
        return f"{row.cells[key].mean / base:.2f}" if base else "-"

    return Answer(
        "Cost",
        f"{ratio('parameters')} × the parameters",  # noqa: RUF001
        f"Compared with {method_phrase(other.method)}: {ratio('parameters')} times the parameters, "
        f"{ratio('prediction_multiply_adds')} times the multiply-adds per prediction, "
        f"{ratio('training_seconds')} times the training time.",
    )


def _calibrated(comparison: Comparison, row: Row) -> Answer:
    if comparison.data.task == "regression":
        return _coverage(comparison, row)
    error = row.cells["ece"].mean
    chance = error_by_chance(comparison.of(row.method)[0].classes)
    short = "No miscalibration detected" if error <= chance else "Miscalibration detected"
    text = f"ECE {error:.4f}; expected by chance up to {chance:.4f} on this many examples (95%)."
    return Answer("Calibration", short, text)


def _coverage(comparison: Comparison, row: Row) -> Answer:
    """Return whether intervals contain the nominal share, by the binomial of so many examples."""
    examples = len(comparison.data.held_out[1])
    nominal = float(comparison.runs[0].scores.get("coverage_meant", 0.9))
    found = row.cells["coverage"].mean
    low, high = binom.interval(LEVEL, examples, nominal)
    text = (
        f"{nominal:.0%} intervals contain {found:.1%} of the targets; expected by chance "
        f"{low / examples:.1%} to {high / examples:.1%} on this many examples (95%)."
    )
    if low <= found * examples <= high:
        short = "No miscalibration detected"
    else:
        short = "Intervals too narrow" if found < nominal else "Intervals too wide"
    return Answer("Calibration", short, text)


def _members(comparison: Comparison, rows: Sequence[Row], chosen: Row) -> list[Answer]:
    """Return whether the members of the chosen ensemble differ, or of all if it is none."""
    ensembles = [row for row in rows if members_of(comparison, row) > 1]
    if chosen in ensembles:
        ensembles = [chosen]
    if not ensembles:
        return []
    title = "Do the members differ?"
    if comparison.data.task == "regression":
        each = ", ".join(f"{row.name} {_epistemic_share(row):.1%}" for row in ensembles)
        text = f"Standard deviation between members' means, as a share of the RMSE: {each}."
        return [Answer(title, _short({row.name: differ(row) for row in ensembles}), text)]
    # Independent members are the reference for the others.
    ensembles = [row for row in ensembles if not METHODS[row.method].independent] or ensembles
    if METHODS[ensembles[0].method].independent:
        share = ensembles[0].cells["disagreement"].mean
        text = f"Trained independently; two members disagree on {share:.2%} of the examples."
        return [Answer(title, "Yes, independent", text)]
    found = {row.name: one_model(comparison, row.method) for row in ensembles}
    if len(found) == 1:
        [(name, judged)] = found.items()
        # The verdict begins with its answer, which the card already has.
        why = judged.verdict.partition(": ")[2]
        return [Answer(title, ANSWERS[judged.answer], f"{name}: {why}")]
    each = ", ".join(
        f"{name} {judged.difference:.2g}"
        + ("" if judged.answer == "ensemble" else f" ({ANSWERS[judged.answer].lower()})")
        for name, judged in found.items()
    )
    text = f"Disagreement of two members, relative to that of independent networks: {each}."
    short = _short({name: judged.answer == "ensemble" for name, judged in found.items()})
    return [Answer(title, short, text)]


def _short(different: dict[str, bool]) -> str:
    names = [name for name, found in different.items() if found]
    if len(names) == len(different):
        return "Yes"
    return f"Only those of {join_names(names)}" if names else "Not shown"


def one_model(comparison: Comparison, method: str) -> OneModel:
    """Return whether an ensemble is a single model, by the first seeds of a comparison.

    The references are the comparison's single network and deep ensemble, where it has them.
    """

    def of(other: str | None) -> Prediction | None:
        return None if other in (None, method) else comparison.of(other)[0].classes

    deep = of(independent_among(comparison.methods))
    return is_one_model(
        comparison.of(method)[0].classes,
        comparison.data.held_out[1],
        single=of(baseline_among(comparison.methods)),
        deep=deep if deep is not None and deep.members > 1 else None,
    )


def _epistemic_share(row: Row) -> float:
    return row.cells["epistemic"].mean / (row.cells["rmse"].mean or 1.0)


def differ(row: Row) -> bool:
    """Return whether members' means deviate from each other by over a tenth of the RMSE."""
    return _epistemic_share(row) > SMALL_SHARE


def member_check(comparison: Comparison, row: Row) -> str:
    """Return the scores of single members and of the ensemble, and whether members differ."""
    runs = comparison.of(row.method)
    if comparison.data.task == "regression":
        errors = [error for run in runs for error in run.scores["member_rmses"]]
        least, most, mean = (
            format_number(each, RMSE) for each in (min(errors), max(errors), row.cells["rmse"].mean)
        )
        return (
            f"RMSE {least} to {most} for single members, {mean} for the ensemble; standard "
            f"deviation between members' means {formatted(row.cells['epistemic'].mean)}."
        )
    alone = [accuracy for run in runs for accuracy in run.scores["member_accuracies"]]
    of_all, information = row.cells["accuracy"].mean, row.cells["mutual_information"].mean
    text = (
        f"accuracy {min(alone):.2%} to {max(alone):.2%} for single members, {of_all:.2%} for the "
        f"ensemble; mutual information {information:.5f} nats."
    )
    if min(alone) < of_all - MEMBERS_FAR_BELOW:
        text += " Members this much less accurate differ because they are wrong, not uncertain."
    if METHODS[row.method].independent:
        return f"{text} Trained independently: the reference for the other ensembles."
    return f"{text} {one_model(comparison, row.method).verdict}"


def members_of(comparison: Comparison, row: Row) -> int:
    """Return the number of members of an ensemble."""
    return comparison.of(row.method)[0].prediction.members
