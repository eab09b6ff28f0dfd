"""Members on the page: their own scores, their diversity, and the gain of averaging them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchensemble.comparison.results import Comparison
from batchensemble.comparison.summary import format_number, quality
from batchensemble.comparison.wording import method_phrase, method_title
from batchensemble.ensembles.methods import baseline_among, independent_among
from batchensemble.metrics.losses_by_example import ScoreName
from batchensemble.metrics.members.diversity import diversity
from batchensemble.metrics.members.gain import ShareOfGain, share_of_gain
from batchensemble.metrics.members.member_curve import effective_members
from batchensemble.predictions import Prediction
from batchensemble.report.sections.tables import Head, Table, TableEntry, TableRow, by_method

DIVERSITY = (
    Head("Disagreement"),
    Head("Pairwise KL", "nats"),
    Head("Q of errors"),
    Head("Correlation of errors"),
    Head("Effective members"),
)
GAINS: dict[ScoreName, str] = {
    "nll": "Gain in NLL",
    "error": "Gain in accuracy",
    "auroc": "Gain in error detection by epistemic uncertainty (AUROC)",
}


def member_table(comparison: Comparison) -> Table:
    """Return the accuracy or RMSE of each member and of the ensemble, for every run."""
    most = max(run.prediction.members for run in comparison.runs)
    first, numbers = quality(comparison)[0], comparison.data.task == "regression"
    lines = []
    for run in by_method(comparison):
        own = [float(each) for each in run.scores[f"member_{'rmses' if numbers else 'accuracies'}"]]
        entries = [TableEntry(str(run.seed), run.seed)]
        entries += [
            TableEntry(format_number(each, first), each) for each in (run.scores[first.key], *own)
        ]
        entries += [TableEntry("")] * (most - len(own))
        lines.append(TableRow(method_title(run.method), run.method, tuple(entries)))
    heads = (Head("Seed"), Head("Ensemble"), *(Head(f"Member {i + 1}") for i in range(most)))
    mean = "their mean" if numbers else "their mean probabilities"
    caption = f"{first.title} of each member, and of the ensemble ({mean})."
    return Table("members", caption, "Method", heads, tuple(lines))


def diversity_table(comparison: Comparison) -> Table | None:
    """Return how much the members of each ensemble differ, for every run.

    ``None`` for predicted numbers, or without an ensemble.
    """
    if comparison.data.task == "regression":
        return None
    reference = independent_among(comparison.methods)
    labels, independent = comparison.data.held_out[1], _predictions(comparison, reference)
    lines = []
    for run in by_method(comparison):
        if run.classes.members < 2:
            continue
        found = diversity(run.classes, labels)
        deep = independent.get(run.seed)
        effective = effective_members(
            run.classes, labels, deep if deep is not None and deep.members > 1 else None
        )
        numbers = (
            found.disagreement,
            found.pairwise_kl,
            found.q_statistic,
            found.error_correlation,
            effective,
        )
        entries = (TableEntry(str(run.seed), run.seed), *(_number(each) for each in numbers))
        lines.append(TableRow(method_title(run.method), run.method, entries))
    if not lines:
        return None
    measure = (
        f"the number of members of {method_phrase(reference)} with the same NLL"
        if reference is not None
        else "the number of independent members whose mean would vary as much"
    )
    caption = (
        "Diversity, mean over pairs of members. Disagreement: how often they predict different "
        "classes. Q and correlation of errors: 1 if they are wrong on the same examples, 0 if "
        f"independently. Effective members: {measure}."
    )
    return Table("diversity", caption, "Method", (Head("Seed"), *DIVERSITY), tuple(lines))


@dataclass(frozen=True)
class GainShares:
    """Shares of the deep ensemble's gain over one network.

    Attributes:
        table: the share of each other ensemble; ``None`` where no share is defined.
        reasons: a sentence for each score without a defined share, saying why.
    """

    table: Table | None
    reasons: tuple[str, ...]


def gain_shares(comparison: Comparison) -> GainShares | None:
    """Return each other ensemble's share of the deep ensemble's gain over one network.

    ``None`` for predicted numbers, and without a single network, a deep ensemble and another one.
    """
    if comparison.data.task == "regression":
        return None
    names = baseline_among(comparison.methods), independent_among(comparison.methods)
    single, deep = (_predictions(comparison, method) for method in names)
    others = {
        method: _predictions(comparison, method)
        for method in comparison.methods
        if method not in names
    }
    # The seeds that all methods have: the shares are then of the same gain.
    seeds = sorted(set.intersection(*map(set, (single, deep, *others.values()))))
    if not others or not seeds or deep[seeds[0]].members < 2:
        return None

    def of(method: str, score: ScoreName) -> ShareOfGain:
        one, own, most = ([each[seed] for seed in seeds] for each in (single, others[method], deep))
        return share_of_gain(one, own, most, comparison.data.held_out[1], score)

    found = {score: [of(method, score) for method in others] for score in GAINS}
    defined = [score for score in GAINS if not any(each.reason for each in found[score])]
    reasons = tuple(
        f"{GAINS[score]}: {next(each.reason for each in found[score] if each.reason)}."
        for score in GAINS
        if score not in defined
    )
    if not defined:
        return GainShares(None, reasons)
    lines = tuple(
        TableRow(
            method_title(method), method, tuple(_share(found[score][row]) for score in defined)
        )
        for row, method in enumerate(others)
    )
    caption = (
        "Share of the deep ensemble's gain over one network (0%: one network, 100%: the deep "
        "ensemble), with its 95% bootstrap interval. The epistemic uncertainty of one network is "
        "always 0, an AUROC of 0.5."
    )
    heads = tuple(Head(GAINS[score]) for score in defined)
    return GainShares(Table("gain-shares", caption, "Method", heads, lines), reasons)


def _predictions(comparison: Comparison, method: str | None) -> dict[int, Prediction]:
    """Return a method's predictions by seed; empty for a method that was not compared."""
    return {run.seed: run.classes for run in comparison.runs if run.method == method}


def _share(found: ShareOfGain) -> TableEntry:
    share, low, high = (
        f"{each:.0%}".replace("-", "−")  # noqa: RUF001
        for each in (found.share, found.low, found.high)
    )
    return TableEntry(share, found.share, detail=f"{low} to {high}")


def _number(value: float) -> TableEntry:
    if math.isnan(value):
        return TableEntry("-")
    return TableEntry(
        "∞" if math.isinf(value) else f"{value:.3g}", value if math.isfinite(value) else None
    )
