"""Mean ranks over several data sets, and which do not differ significantly (Demšar 2006)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from batchensemble.comparison.ranking import Ranking, groups, score_name, sentence
from batchensemble.comparison.wording import join_names
from batchensemble.report.plots.style import (
    FAINT,
    INK,
    SOFT,
    drawing,
    plain,
    single_panel,
    style_of,
)

# Heights, a row is 1: the critical difference on top, bars and methods below.
SCALE_HEIGHT = 0.5
FIRST_BAR, BAR = 0.45, 0.35
BELOW_BARS = 0.45
INCHES_A_ROW = 0.3


@drawing()
def mean_ranks(ranking: Ranking, ax: Axes | None = None) -> Axes:
    """Draw the mean rank of each method, the best at the left, and the critical difference.

    A bar joins methods without a significant difference (Demšar 2006, figure 1).

    Args:
        ranking: a ranking, from :func:`batchensemble.comparison.ranking.rank_folders`.
        ax: axes to draw into; by default those of a new figure, as high as the methods need.
    """
    means, order, tied = ranking.over_all.mean, ranking.order, groups(ranking)
    first = FIRST_BAR + BAR * len(tied) + BELOW_BARS
    last = first + len(order) - 1
    ax = single_panel(ax, 6.4, 1.1 + INCHES_A_ROW * (last + SCALE_HEIGHT))
    for row, method in enumerate(order, start=1):
        style = style_of(ranking.methods[method])
        place = first + row - 1
        ax.plot(
            [means[method]] * 2, [FIRST_BAR - BAR / 2, place], color=FAINT, linewidth=1, zorder=1
        )
        ax.plot([0, means[method]], [place, place], color=FAINT, linewidth=1, zorder=1)
        ax.plot(
            means[method], place, style.marker, color=style.colour, markeredgecolor="white",
            markersize=9, gid=ranking.methods[method], zorder=4,
        )  # fmt: skip
        ax.annotate(
            f"{means[method]:.2f}", (means[method], place), xytext=(8, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    for number, together in enumerate(tied):
        ends = [means[together[0]], means[together[-1]]]
        height = FIRST_BAR + BAR * number
        ax.plot(
            [ends[0] - 0.03, ends[1] + 0.03], [height, height], color=INK, linewidth=4,
            solid_capstyle="butt", gid="no-significant-difference", zorder=3,
        )  # fmt: skip
    _scale(ax, ranking)
    _frame(ax, ranking, first, last)
    return ax


def described(ranking: Ranking) -> str:
    """Return a description of the figure for those who cannot see it."""
    ranks = [f"{ranking.names[each]} {ranking.over_all.mean[each]:.2f}" for each in ranking.order]
    return (
        f"Mean ranks over {len(ranking.datasets)} data sets, 1 is the best: {join_names(ranks)}; "
        f"the critical difference is {ranking.over_all.critical_difference:.2f}. "
        f"{sentence(ranking)}"
    )


def _scale(ax: Axes, ranking: Ranking) -> None:
    """Draw the critical difference as a length, or say that it is larger than any difference."""
    length, most = ranking.over_all.critical_difference, len(ranking.methods) - 1
    text = f"critical difference {length:.2f}"
    if length > most:
        text += f", larger than any possible difference, {most}"
    else:
        ax.errorbar(
            1 + length / 2, -SCALE_HEIGHT, xerr=length / 2, color=SOFT, capsize=4, linewidth=1.4,
            gid="critical-difference",
        )  # fmt: skip
    ax.annotate(
        text, (1 + (length if length <= most else 0), -SCALE_HEIGHT), xytext=(8, 0),
        textcoords="offset points", va="center", color=SOFT,
    )  # fmt: skip


def _frame(ax: Axes, ranking: Ranking, first: float, last: float) -> None:
    methods = len(ranking.methods)
    ax.set_yticks(
        first + np.arange(methods), [plain(ranking.names[each]) for each in ranking.order]
    )
    ax.set_xlim(1 - 0.06 * (methods - 1), methods + 0.12 * (methods - 1))
    ax.set_ylim(last + 0.6, -SCALE_HEIGHT - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    sets = f"over {len(ranking.datasets)} data sets (1 is the best)"
    ax.set_xlabel(f"mean rank by {score_name(ranking.by)} {sets}")
