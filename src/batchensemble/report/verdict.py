"""The verdict: which method, how much better, at what cost, is it calibrated, are members real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom

from batchensemble.comparison.differences import Differences
from batchensemble.comparison.results import Comparison
from batchensemble.comparison.summary import (
    REGRESSION,
    Column,
    Row,
    format_number,
    headline,
    quality,
)
from batchensemble.comparison.wording import capitalised, join_names, method_phrase
from batchensemble.ensembles.methods import METHODS, baseline_among, independent_among
from batchensemble.metrics import one_class, only_one_class
from batchensemble.metrics.bootstrap import LEVEL
from batchensemble.metrics.members.one_model import OneModel, is_one_model
from batchensemble.predictions import Prediction
from batchensemble.report.sections.calibrated import error_by_chance
from batchensemble.report.sections.tables import signed

# Members that are this much worse alone than together were not trained to answer alone.
MEMBERS_FAR_BELOW = 0.05
# Numbers of members that differ by less than this share of the RMSE are nearly one network's.
SMALL_SHARE = 0.1
RMSE = REGRESSION[0]
ANSWERS = {"one model": "One model", "ensemble": "An ensemble", "undecided": "Undecided"}


@dataclass(frozen=True)
class Answer:
    """An answer of the verdict.

    Attributes:
        question: in a few words.
        short: the answer in a word or two.
        text: a sentence with its numbers.
    """

    question: str
    short: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a comparison says.

    Attributes:
        headline: in a sentence or two.
        method: the one to take; ``None`` without a finished run. Of methods that are not told apart
            it is the one that predicts with the least arithmetic.
        answers: to the questions after it.
    """

    headline: str
    method: str | None
    answers: tuple[Answer, ...]


def verdict(comparison: Comparison, rows: Sequence[Row], differences: Differences) -> Verdict:
    """Return what a comparison says by the headline score of its methods.

    Args:
        comparison: with any number of finished runs.
        rows: from :func:`batchensemble.comparison.summary.summarise`.
        differences: what is told apart.
    """
    if not rows:
        sentence = "No training came to its end, so there is nothing to compare."
        return Verdict(sentence, None, ())
    by = headline(comparison)
    chosen = min(_leading(by, rows), key=lambda row: row.cells["prediction_multiply_adds"].mean)
    answers = []
    if len(rows) > 1:
        other = _reference(by, rows, chosen)
        answers += [_difference(by, differences, chosen, other), _relative_cost(chosen, other)]
    answers += [_calibrated(comparison, chosen), *_members(comparison, rows, chosen)]
    alike = remarks(comparison)
    if chosen.method in alike:
        answers.append(Answer("Does it tell the classes apart?", "No", alike[chosen.method]))
    return Verdict(_headline(by, comparison, rows, chosen), chosen.method, tuple(answers))


def remarks(comparison: Comparison) -> dict[str, str]:
    """Return by method which name one class for every held-out example, in all their runs.

    Their accuracy is the share of that class, and members that agree so have no disagreement,
    which looks like certainty.
    """
    found: dict[str, str] = {}
    if comparison.data.task == "regression":
        return found
    for method in comparison.methods:
        runs = comparison.of(method)
        named = {one_class(run.classes) for run in runs}
        accuracy = runs[0].scores["accuracy"] if runs else 1.0
        if len(named) == 1 and accuracy < 1 and (only := named.pop()) is not None:
            sentence = only_one_class(only, accuracy, comparison.data.class_names)
            found[method] = f"{capitalised(method_phrase(method))}: {sentence}."
    return found


def _leading(by: Column, rows: Sequence[Row]) -> list[Row]:
    """Return the best method, or all that are not told apart from it."""
    ranked = sorted(rows, key=lambda row: row.cells[by.key].mean)
    marked = [row for row in ranked if row.cells[by.key].best or row.cells[by.key].tied]
    # Without a mark all print alike, or nobody can tell.
    return marked or ranked


def _reference(by: Column, rows: Sequence[Row], chosen: Row) -> Row:
    """Return what a method is measured by: the single network, or the next best of the others."""
    others = sorted(
        (row for row in rows if row is not chosen), key=lambda row: row.cells[by.key].mean
    )
    baseline = baseline_among(row.method for row in others)
    return next((row for row in others if row.method == baseline), others[0])


def _headline(by: Column, comparison: Comparison, rows: Sequence[Row], chosen: Row) -> str:
    examples = f"{len(comparison.data.held_out[0]):,} {comparison.data.scored}"
    unit, name = f" {by.unit}" if by.unit else "", capitalised(method_phrase(chosen.method))
    reached = f"{by.title} of {format_number(chosen.cells[by.key].mean, by)}{unit}"
    an = "a" if by.title.startswith("C") else "an"
    if len(rows) == 1:
        first = quality(comparison)[0]
        title = first.title if first.key == "rmse" else first.title.lower()
        other = f"{title} of {format_number(chosen.cells[first.key].mean, first)}"
        return f"{name} reaches {an} {reached} and an {other} on {examples}."
    leading = _leading(by, rows)
    if len(leading) == 1:
        return f"{name} is best beyond chance: {an} {reached} on {examples}."
    names = capitalised(join_names([method_phrase(row.method) for row in leading]))
    low, high = (format_number(leading[end].cells[by.key].mean, by) for end in (0, -1))
    span = f"both {low}" if low == high else f"from {low} to {high}"
    return (
        f"{names} are not told apart: their {by.title}, {span}{unit} on {examples}, differs by no "
        f"more than chance. {name} predicts with the least arithmetic of them."
    )


def _difference(by: Column, differences: Differences, row: Row, other: Row) -> Answer:
    question = f"How much better than {method_phrase(other.method)}?"
    found = differences.between(by.key, row.method, other.method)
    if found is None:
        return Answer(question, "Unknown", "They have no seed in common to be compared by.")
    unit = f" {by.unit}" if by.unit else ""
    text = (
        f"{by.title} {signed(found.estimate, by)}{unit}, 95% interval {signed(found.low, by)} to "
        f"{signed(found.high, by)}."
    )
    if not found.significant:
        return Answer(question, "Within chance", text)
    more = "less" if found.estimate < 0 else "more"
    short = f"{format_number(abs(found.estimate), by)}{unit} {more}"
    return Answer(question, short, f"{text} Beyond chance.")


def _relative_cost(row: Row, other: Row) -> Answer:
    def ratio(key: str) -> str:
        base = other.cells[key].mean
        return f"{row.cells[key].mean / base:.2f}" if base else "-"

    return Answer(
        "At what cost?",
        f"{ratio('parameters')} × the weights",  # noqa: RUF001
        f"Compared with {method_phrase(other.method)}: {ratio('parameters')} times the parameters, "
        f"{ratio('prediction_multiply_adds')} times the multiply-adds per prediction, "
        f"{ratio('training_seconds')} times the training time.",
    )


def _calibrated(comparison: Comparison, row: Row) -> Answer:
    question = "Is it calibrated?"
    if comparison.data.task == "regression":
        return _coverage(question, comparison, row)
    error = row.cells["ece"].mean
    chance = error_by_chance(comparison.of(row.method)[0].classes)
    text = (
        f"ECE {error:.4f}, expected by chance up to {chance:.4f}: a calibrated network stays below "
        f"that in 95% of the cases on so many examples."
    )
    return Answer(question, "Yes, as far as it shows" if error <= chance else "No", text)


def _coverage(question: str, comparison: Comparison, row: Row) -> Answer:
    """Return whether intervals hold what they should, by the binomial of so many examples."""
    examples = len(comparison.data.held_out[1])
    meant = float(comparison.runs[0].scores.get("coverage_meant", 0.9))
    found = row.cells["coverage"].mean
    low, high = binom.interval(LEVEL, examples, meant)
    text = (
        f"{meant:.0%} intervals contain {found:.1%} of the targets, expected by chance "
        f"{low / examples:.1%} to {high / examples:.1%}."
    )
    short = (
        "Yes, as far as it shows"
        if low <= found * examples <= high
        else ("Too sure" if found < meant else "Too modest")
    )
    return Answer(question, short, text)


def _members(comparison: Comparison, rows: Sequence[Row], chosen: Row) -> list[Answer]:
    """Return whether the members of the chosen ensemble are real, or of all if it is none."""
    ensembles = [row for row in rows if members_of(comparison, row) > 1]
    if chosen in ensembles:
        ensembles = [chosen]
    if not ensembles:
        return []
    question = "Are the members real?"
    if comparison.data.task == "regression":
        each = ", ".join(f"{row.name} {_epistemic_share(row):.1%}" for row in ensembles)
        text = f"What members differ in, as a share of the RMSE: {each}."
        return [Answer(question, _short({row.name: differ(row) for row in ensembles}), text)]
    # Independent members are what others are held against.
    ensembles = [row for row in ensembles if not METHODS[row.method].independent] or ensembles
    if METHODS[ensembles[0].method].independent:
        apart = ensembles[0].cells["disagreement"].mean
        text = (
            f"They were trained apart; two of them name different classes in {apart:.2%} of cases."
        )
        return [Answer(question, "Yes", text)]
    found = {row.name: one_model(comparison, row.method) for row in ensembles}
    if len(found) == 1:
        [(name, judged)] = found.items()
        # The verdict begins with its answer, which stands above it.
        why = judged.verdict.partition(": ")[2]
        return [Answer(question, ANSWERS[judged.answer], f"{name}: {why}")]
    each = "; ".join(
        f"{name} {judged.difference:.2g} times as often ({ANSWERS[judged.answer].lower()})"
        for name, judged in found.items()
    )
    text = f"How often members name different classes, beside independent networks: {each}."
    short = _short({name: judged.answer == "ensemble" for name, judged in found.items()})
    return [Answer(question, short, text)]


def _short(real: dict[str, bool]) -> str:
    names = [name for name, found in real.items() if found]
    if len(names) == len(real):
        return "Yes"
    return f"Only those of {join_names(names)}" if names else "Not shown"


def one_model(comparison: Comparison, method: str) -> OneModel:
    """Return whether an ensemble is a single model, by the first seeds of a comparison.

    The single network and the deep ensemble of the comparison are what it is held against.
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
    """Say whether numbers of members differ by a tenth of the RMSE at least."""
    return _epistemic_share(row) > SMALL_SHARE


def member_check(comparison: Comparison, row: Row) -> str:
    """Say whether an ensemble's members are good alone, and whether they differ."""
    runs = comparison.of(row.method)
    if comparison.data.task == "regression":
        errors = [error for run in runs for error in run.scores["member_rmses"]]
        least, most, mean = (
            format_number(each, RMSE) for each in (min(errors), max(errors), row.cells["rmse"].mean)
        )
        return (
            f"its members have an RMSE of {least} to {most} one by one and of {mean} together; "
            f"their means differ by a deviation of {row.cells['epistemic'].mean:.2g}."
        )
    alone = [accuracy for run in runs for accuracy in run.scores["member_accuracies"]]
    together, information = row.cells["accuracy"].mean, row.cells["mutual_information"].mean
    text = (
        f"its members are right in {min(alone):.2%} to {max(alone):.2%} of the examples one by "
        f"one and in {together:.2%} together; mutual information {information:.5f} nats."
    )
    if min(alone) < together - MEMBERS_FAR_BELOW:
        text += " Members this much worse alone differ because they are wrong, not unsure."
    if METHODS[row.method].independent:
        return f"{text} They were trained apart, and are what other members are held against."
    return f"{text} {one_model(comparison, row.method).verdict}"


def members_of(comparison: Comparison, row: Row) -> int:
    """Return how many members an ensemble has."""
    return comparison.of(row.method)[0].prediction.members
