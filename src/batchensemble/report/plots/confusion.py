"""Confusion matrices: which classes are taken for which?"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from batchensemble.comparison.results import Comparison
from batchensemble.metrics.confusion_matrix import MOST_SHOWN, Confusion, confusion
from batchensemble.report.plots.style import (
    INK,
    MethodStyle,
    drawing,
    figure_of,
    pale,
    panels_of,
    plain,
    style_of,
)

MOST_COUNTS = 8  # classes whose counts fit their cells
DARK = 0.55  # strength of a colour from which text on it is white


@drawing()
def confusion_panels(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw each method's confusion matrix: shares of each true class, and counts for few classes.

    Args:
        comparison: a comparison of at most 12 classes with at least one finished run.
        axes: one axes for each method; by default those of a new figure.

    Returns:
        The axes drawn into.

    Raises:
        ValueError: there are more classes.
    """
    classes = comparison.data.classes
    if classes > MOST_SHOWN:
        raise ValueError(f"a confusion matrix shows up to {MOST_SHOWN} classes, got {classes}")
    labels = comparison.data.held_out[1]
    height = 1.5 + max(1.5, 0.3 * classes)
    [drawn] = panels_of(axes, len(comparison.methods), height, sharey=True)
    names = [plain(each, 14) for each in comparison.data.class_names]
    names = names or list(map(str, range(classes)))
    for ax, method in zip(drawn, comparison.methods, strict=True):
        _matrix(ax, confusion(comparison.of(method)[0].classes, labels), names, style_of(method))
    drawn[0].set_ylabel("true class")
    figure_of(drawn[0]).supxlabel("predicted class", fontsize=9.5)
    return drawn


def _matrix(ax: Axes, found: Confusion, names: list[str], style: MethodStyle) -> None:
    examples = found.counts.sum(1, keepdims=True)
    shares = found.counts / examples.clip(1)
    ax.imshow(pale(style.colour, 0.9 * shares), aspect="auto", interpolation="none")
    places = range(len(names))
    ax.set_xticks(places, names)
    ax.set_yticks(places, names)
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_parse_math(False)  # names are not formulas
    if len(names) > 3:
        for label in ax.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.set_title(style.name)
    if len(names) > MOST_COUNTS:
        return
    for true in places:
        for predicted in places:
            ax.text(
                predicted,
                true,
                f"{found.counts[true, predicted]:,}",
                ha="center",
                va="center",
                color="white" if shares[true, predicted] > DARK else INK,
            )
