"""What the page says of members: each alone, how they differ, and what they gain together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchensemble.comparison.results import Comparison
from batchensemble.comparison.summary import format_number, quality
from batchensemble.comparison.wording import method_phrase, method_title
from batchensemble.ensembles.methods import baseline_among, independent_among
from batchensemble.metrics.losses_by_example import Loss
from batchensemble.metrics.members.diversity import diversity
from batchensemble.metrics.members.gain import ShareOfGain, share_of_gain
from batchensemble.metrics.members.member_curve import effective_members
from batchensemble.predictions import Prediction
from batchensemble.report.sections.tables import Entry, Head, Table, TableRow, by_method

DIVERSITY = (
    Head("Disagreement"),
    Head("KL of two members", "nats"),
    Head("Q of their errors"),
    Head("Correlation of their errors"),
    Head("Effective members"),
)
GAINS: dict[Loss, str] = {
    "nll": "Gain in NLL",
    "error": "Gain in accuracy",
    "auroc": "Gain in finding errors by the epistemic part (AUROC)",
}


def member_table(comparison: Comparison) -> Table:
    """Return the accuracy or RMSE of each member alone, and of all together, run by run."""
    most = max(run.prediction.members for run in comparison.runs)
    first, numbers = quality(comparison)[0], comparison.data.task == "regression"
    lines = []
    for run in by_method(comparison):
        own = [float(each) for each in run.scores[f"member_{'rmses' if numbers else 'accuracies'}"]]
        entries = [Entry(str(run.seed), run.seed)]
        entries += [
            Entry(format_number(each, first), each) for each in (run.scores[first.key], *own)
        ]
        entries += [Entry("")] * (most - len(own))
        lines.append(TableRow(method_title(run.method), run.method, tuple(entries)))
    heads = (Head("Seed"), Head("Together"), *(Head(f"Member {i + 1}") for i in range(most)))
    together = "their mean" if numbers else "the mean of their probabilities"
    caption = f"{first.title} of each member alone, and of {together}."
    return Table("members", caption, "Method", heads, tuple(lines))


def diversity_table(comparison: Comparison) -> Table | None:
    """Return how much the members of each ensemble differ, run by run.

    ``None`` of numbers, or where there is no ensemble.
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
        entries = (Entry(str(run.seed), run.seed), *(_number(each) for each in numbers))
        lines.append(TableRow(method_title(run.method), run.method, entries))
    if not lines:
        return None
    measure = (
        f"how many members of {method_phrase(reference)} reach the same NLL"
        if reference is not None
        else "how many independent members would have a mean that varies as much"
    )
    caption = (
        "How two members of an ensemble differ, mean over the pairs: how often they name different "
        "classes, how far their probabilities are apart, and whether they are wrong on the same "
        "examples; a Q or a correlation of 1 says on exactly the same, 0 that they err "
        f"independently. The effective number of members is {measure}."
    )
    return Table("diversity", caption, "Method", (Head("Seed"), *DIVERSITY), tuple(lines))


@dataclass(frozen=True)
class GainShares:
    """Shares of the deep ensemble's gain over one network.

    Attributes:
        table: of each other ensemble; ``None`` where there is nothing to have a share of.
        reasons: why there is no share of a score, a sentence each.
    """

    table: Table | None
    reasons: tuple[str, ...]


def gain_shares(comparison: Comparison) -> GainShares | None:
    """Return which share of the deep ensemble's gain over one network each other ensemble keeps.

    ``None`` of numbers, and where the single network, the deep ensemble or any other is missing.
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
    # Of the seeds that all have: a share is of the same gain for all.
    seeds = sorted(set.intersection(*map(set, (single, deep, *others.values()))))
    if not others or not seeds or deep[seeds[0]].members < 2:
        return None

    def of(method: str, score: Loss) -> ShareOfGain:
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
        "Which share of what a deep ensemble gains over one network is kept: 0% is one network, "
        "100% the deep ensemble. Below it the 95% bootstrap interval. The epistemic part of one "
        "network is always 0 and finds nothing, an AUROC of 0.5."
    )
    heads = tuple(Head(GAINS[score]) for score in defined)
    return GainShares(Table("gain-shares", caption, "Method", heads, lines), reasons)


def _predictions(comparison: Comparison, method: str | None) -> dict[int, Prediction]:
    """Return a method's predictions by seed; none of a method that the comparison lacks."""
    return {run.seed: run.classes for run in comparison.runs if run.method == method}


def _share(found: ShareOfGain) -> Entry:
    share, low, high = (
        f"{each:.0%}".replace("-", "−")  # noqa: RUF001
        for each in (found.share, found.low, found.high)
    )
    return Entry(share, found.share, detail=f"{low} to {high}")


def _number(value: float) -> Entry:
    if math.isnan(value):
        return Entry("-")
    return Entry(
        "∞" if math.isinf(value) else f"{value:.3g}", value if math.isfinite(value) else None
    )
