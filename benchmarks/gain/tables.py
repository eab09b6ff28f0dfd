"""The tables, sentences and figure of the page on gain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchensemble.comparison.ranking.ranks import Ranks
from batchensemble.core.atomic_files import write_whole
from batchensemble.report.plots.saving import png
from batchensemble.report.plots.style import FAINT, SOFT, drawing
from benchmarks.gain.runs import DEEP, DEFAULT, METHODS, RULES, SINGLE
from benchmarks.gain.shares import Difference, Scored, ranks
from benchmarks.pages import ROOT, Lines, as_markdown, write_texts

PAGE = ROOT / "docs" / "gain.md"
FIGURE = ROOT / "docs" / "images" / "gain.png"
SCORES = {
    "nll": "NLL",
    "epistemic": "AUROC of the epistemic part",
    "total": "AUROC of the total uncertainty",
}
OTHERS = [name for name in RULES if name != DEFAULT]
LOOKS = {
    DEFAULT: ("#D55E00", "^"),
    "independent": ("#0072B2", "o"),
    "split": ("#CC79A7", "s"),
    "first": ("#009E73", "D"),
}
VIEW = (-1.0, 3.0)  # shares that the figure shows; arrows point to what is beyond
NOTHING = "no gain to share"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Found:
    """What was found on one data set.

    Attributes:
        name: of it.
        seeds: how many were finished with all methods.
        scores: by name.
    """

    name: str
    seeds: int
    scores: Mapping[str, Scored]


def tables(found: list[Found]) -> dict[str, Lines]:
    """Return all tables, by the names of their marks."""
    return {
        "scores": score_lines(found),
        "shares": share_lines(found),
        "rules": rule_lines(found),
        "ranks": rank_lines(found),
        "verdicts": verdict_lines(found),
    }


def score_lines(found: list[Found]) -> Lines:
    """Return the scores themselves."""
    lines = [["data, score", "seeds", *(method.title for method in METHODS.values())]]
    for each, name, scored in _rows(found):
        means = [f"{scored.mean(method):.4f}" for method in METHODS]
        lines.append([_title(each, name), str(each.seeds), *means])
    return lines


def share_lines(found: list[Found]) -> Lines:
    """Return the deep ensemble's gain and what the rules bring of it."""
    heading = ["data, score", "gain of the deep ensemble"]
    lines = [[*heading, *(METHODS[rule].title for rule in RULES)]]
    for each, name, scored in _rows(found):
        shares = [scored.share(rule, SINGLE, DEEP) for rule in RULES]
        cells = [NOTHING if share is None else in_brackets(share, 2) for share in shares]
        lines.append([_title(each, name), signed(scored.gain(DEEP, SINGLE)), *cells])
    return lines


def rule_lines(found: list[Found]) -> Lines:
    """Return how much better than the default the other rules are."""
    lines = [["data, score", *(METHODS[rule].title for rule in OTHERS)]]
    for each, name, scored in _rows(found):
        gains = [scored.gain(rule, DEFAULT) for rule in OTHERS]
        cells = [f"{signed(gain)}{('', ' better', ' worse')[gain.side]}" for gain in gains]
        lines.append([_title(each, name), *cells])
    return lines


def rank_lines(found: list[Found]) -> Lines:
    """Return the rules' mean ranks."""
    heading = ["score", "data sets", *(METHODS[rule].title for rule in RULES)]
    lines = [[*heading, "critical difference"]]
    for name, title in SCORES.items():
        if (ranked := _ranks(found, name)) is not None:
            means = [f"{mean:.2f}" for mean in ranked.mean]
            critical = f"{ranked.critical_difference:.2f}"
            sets = sum(name in each.scores for each in found)
            lines.append([title, str(sets), *means, critical])
    return lines


def sentences(found: list[Found]) -> list[str]:
    """Return a sentence for each row of the tables."""
    return [
        f"- **{_title(each, name)}**: {_share_in_words(scored)}; {_rules_in_words(scored)}."
        for each, name, scored in _rows(found)
    ]


def verdict_lines(found: list[Found]) -> Lines:
    """Return on how many data sets each rule differs significantly from the default."""
    lines = [["rule, score", "data sets", "better", "worse", "no significant difference"]]
    for rule, name, sides in _sides(found):
        counts = [len(sides), sides.count(1), sides.count(-1), sides.count(0)]
        lines.append([f"{METHODS[rule].title}, {SCORES[name]}", *map(str, counts)])
    return lines


def conclusion(found: list[Found]) -> str:
    """Return which rules differ significantly from the default on most of the data sets."""
    parts = []
    for side, what in ((1, "better"), (-1, "worse")):
        rules = [
            f"{METHODS[rule].title} ({SCORES[name]}: {sides.count(side)} of {len(sides)})"
            for rule, name, sides in _sides(found)
            if sides.count(side) > len(sides) / 2
        ]
        than = "than the default on most data sets"
        named = f"{what.capitalize()} {than}: {', '.join(rules)}."
        parts.append(named if rules else f"No rule is {what} {than}.")
    return " ".join(parts)


def write(found: list[Found], measured: str) -> None:
    """Put the tables and sentences into the page, and draw its figure."""
    texts = {
        name: as_markdown(lines, note=measured if name == "scores" else "")
        for name, lines in tables(found).items()
    }
    texts["in words"] = "\n".join(sentences(found))
    texts["conclusion"] = f"**{conclusion(found)}**"
    write_texts(PAGE, texts)
    save_figure(found, FIGURE)


def save_figure(found: list[Found], path: Path) -> None:
    """Write the figure of the shares."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, png(figure(found)))


@drawing()
def figure(found: list[Found]) -> Figure:
    """Draw the shares with their intervals, a panel a score."""
    panels = {
        name: sets
        for name in SCORES
        if (sets := [(each.name, each.scores[name]) for each in found if name in each.scores])
    }
    result = Figure(figsize=(9.6, 1.7 + 0.62 * len(found)), layout="constrained")
    grid = result.subplots(1, len(panels), squeeze=False, sharex=True)[0]
    for ax, (name, sets) in zip(grid, panels.items(), strict=True):
        _panel(ax, SCORES[name].replace(" of ", "\nof "), sets)
    handles, labels = grid[0].get_legend_handles_labels()
    result.legend(handles, labels, loc="outside upper center", ncols=len(RULES))
    result.supxlabel("share of the deep ensemble's gain over one network, 95 % interval")
    return result


def _panel(ax: Axes, title: str, sets: list[tuple[str, Scored]]) -> None:
    for place in (0, 1):
        ax.axvline(place, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for row, (_, scored) in enumerate(sets):
        if row:
            ax.axhline(row - 0.5, color=FAINT, linewidth=0.8, zorder=0)
        if scored.gain(DEEP, SINGLE).side < 1:
            words = {"color": SOFT, "fontsize": 8.5, "backgroundcolor": "white"}
            ax.text(sum(VIEW) / 2, row, NOTHING, ha="center", va="center", **words)
    for number, rule in enumerate(RULES):
        colour, marker = LOOKS[rule]
        ax.plot([], [], marker, color=colour, label=METHODS[rule].title)
        for row, (_, scored) in enumerate(sets):
            share = scored.share(rule, SINGLE, DEEP)
            if share is not None:
                height = row + 0.19 * (number - (len(RULES) - 1) / 2)
                _interval(ax, share, height, colour, marker)
    ax.set_yticks(range(len(sets)), [name for name, _ in sets])
    ax.tick_params(axis="y", length=0)
    ax.set(title=title, ylim=(len(sets) - 0.5, -0.5), xlim=(VIEW[0] - 0.15, VIEW[1] + 0.15))


def _interval(ax: Axes, share: Difference, height: float, colour: str, marker: str) -> None:
    """Draw one share; arrows where its interval goes on, and no point where that is outside."""
    low, high = (min(max(each, VIEW[0]), VIEW[1]) for each in (share.low, share.high))
    ax.plot([low, high], [height, height], color=colour, linewidth=1.3)
    if share.low < VIEW[0]:
        ax.plot([low], [height], "<", color=colour, markersize=3.5)
    if share.high > VIEW[1]:
        ax.plot([high], [height], ">", color=colour, markersize=3.5)
    if VIEW[0] <= share.value <= VIEW[1]:
        ax.plot([share.value], [height], marker, color=colour, markersize=5, markeredgecolor="w")


def in_brackets(number: Difference, digits: int) -> str:
    """Return a number and its interval as text.

    Example:
        >>> in_brackets(Difference(0.5, 0.25, 0.75), 2)
        '0.50 [0.25, 0.75]'
    """
    value, low, high = (_plain(each, f".{digits}f") for each in _three(number))
    return f"{value} [{low}, {high}]"


def signed(number: Difference) -> str:
    """Return a difference and its interval with their signs."""
    value, low, high = (_plain(each, "+.4f") for each in _three(number))
    return f"{value} [{low}, {high}]"


def _three(number: Difference) -> tuple[float, float, float]:
    return number.value, number.low, number.high


def _plain(number: float, form: str) -> str:
    text = f"{number:{form}}"
    return f"{0.0:{form}}" if float(text) == 0 else text.replace("-", MINUS)


def _rows(found: list[Found]) -> Iterator[tuple[Found, str, Scored]]:
    for name in SCORES:
        for each in found:
            if name in each.scores:
                yield each, name, each.scores[name]


def _sides(found: list[Found]) -> Iterator[tuple[str, str, list[int]]]:
    """Yield rule, score, and for each data set on which side of the default the rule is."""
    for name in SCORES:
        several = [each.scores[name] for each in found if name in each.scores]
        for rule in OTHERS if several else ():
            yield rule, name, [scored.gain(rule, DEFAULT).side for scored in several]


def _title(each: Found, name: str) -> str:
    return f"{each.name}, {SCORES[name]}"


def _ranks(found: list[Found], name: str) -> Ranks | None:
    several = [each.scores[name] for each in found if name in each.scores]
    return ranks(several, RULES) if len(several) > 1 else None


def _share_in_words(scored: Scored) -> str:
    share = scored.share(DEFAULT, SINGLE, DEEP)
    if share is None:
        gain = scored.gain(DEEP, SINGLE)
        how = "is worse than one network" if gain.side < 0 else "has no significant gain"
        return f"the deep ensemble {how}, so there is {NOTHING}"
    low, high = (_plain(100 * each, ".0f") for each in (share.low, share.high))
    kept = _plain(100 * share.value, ".0f")
    if share.low > 1:
        verdict = "more than the deep ensemble"
    elif share.low > 0:
        verdict = (
            "not significantly different from all of it" if share.high >= 1 else "a part of it"
        )
    elif share.high >= 1:
        verdict = "anything from nothing to all of it"
    else:
        verdict = (
            "not significantly different from none of it"
            if share.high >= 0
            else "worse than one network"
        )
    return f"the default keeps {kept} % of the gain [{low}, {high}], {verdict}"


def _rules_in_words(scored: Scored) -> str:
    sides = {rule: scored.gain(rule, DEFAULT).side for rule in OTHERS}
    parts = [
        f"{' and '.join(METHODS[rule].title for rule in rules)} {what}"
        for side, what in ((1, "significantly better"), (-1, "significantly worse"))
        if (rules := [rule for rule in OTHERS if sides[rule] == side])
    ]
    return ", ".join(parts) or "no other rule differs significantly from it"
