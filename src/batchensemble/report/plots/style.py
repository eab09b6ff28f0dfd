"""The style of all figures: a colour, marker and line style for each method, and the fonts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from batchensemble.comparison.wording import method_title, printable
from batchensemble.ensembles.methods import METHODS

INK = "#222222"
SOFT = "#6b6b6b"
FAINT = "#d9d9d9"
MOST_SIDE_BY_SIDE = 5  # panels, or names in a legend
PANEL = 2.75  # inches, width of one panel in a row
LEAST_WIDTH = 4.3  # inches, of a row of one panel: room for the legend and the axis' name
CHARACTERS = 13  # of the type of axis names, an inch
LONGEST_NAME = 28


@dataclass(frozen=True)
class MethodStyle:
    """The style of one method in every figure.

    Attributes:
        name: the method's title.
        colour: a colour of Okabe and Ito's palette, which is safe for colour-blind readers.
        marker: a marker that is distinct without colour.
        line: a line style that is distinct without colour.
    """

    name: str
    colour: str
    marker: str
    line: Any


def style_of(method: str) -> MethodStyle:
    """Return the style of a method; an unknown one is grey."""
    if method not in METHODS:
        return MethodStyle(method_title(method), SOFT, "o", "solid")
    style = METHODS[method].style
    return MethodStyle(METHODS[method].title, style.colour, style.marker, style.line)


RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 7,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    # The identifiers inside an SVG file are random without it.
    "svg.hashsalt": "batchensemble",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save in the package's style, whatever the user's settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def row_of_panels(
    columns: int, height: float, rows: int = 1, **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of equal panels, side by side, and its rows of panels.

    Where a row has more than five, it goes on below: the figure is then a column of blocks.

    Args:
        columns: number of panels in a row.
        height: height of a block, inches.
        rows: number of rows, 1 by default.
        options: options of :meth:`matplotlib.figure.Figure.subplots`.
    """
    across = panels_across(columns)
    blocks = -(-columns // across)
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05)
    width = max(PANEL * across + 0.6, LEAST_WIDTH)
    figure = Figure(figsize=(width, height * blocks), layout=layout)
    if "height_ratios" in options:
        options["height_ratios"] = [*options["height_ratios"]] * blocks
    row_wise = options.get("sharey") == "row" and blocks > 1  # a row of panels is in each block
    if row_wise:
        options["sharey"] = False
    grid = figure.subplots(rows * blocks, across, squeeze=False, **options)
    for place, panels in enumerate(grid):
        for position, panel in enumerate(panels):
            if place // rows * across + position >= columns:
                panel.remove()
            else:
                _label_outer(panel, left=position == 0, bottom=place % rows == rows - 1)
    panels_in_order = [
        [panel for block in range(blocks) for panel in grid[block * rows + row]][:columns]
        for row in range(rows)
    ]
    if row_wise:
        for first, *others in panels_in_order:
            for panel in others:
                panel.sharey(first)
    return figure, panels_in_order


def panels_across(columns: int, most: int = MOST_SIDE_BY_SIDE) -> int:
    """Return how many panels, or names, stand side by side where at most so many may.

    Example:
        >>> panels_across(4), panels_across(9), panels_across(11)
        (4, 5, 4)
    """
    return -(-columns // -(-columns // most))


def _label_outer(panel: Axes, *, left: bool, bottom: bool) -> None:
    """Keep the ticks at the left and at the bottom of a block of panels only."""
    panel.tick_params(which="both", left=left, labelleft=left, bottom=bottom, labelbottom=bottom)


def panels_of(
    axes: Any, columns: int, height: float, rows: int = 1, **options: Any
) -> list[list[Axes]]:
    """Return the axes given, row by row, or those of a new figure, see :func:`row_of_panels`.

    Args:
        axes: matplotlib axes in any array or list; ``None`` makes a new figure.
        columns: number of panels in a row.
        height: height of a new figure, inches.
        rows: number of rows, 1 by default.
        options: options of a new figure, see :func:`row_of_panels`.

    Raises:
        ValueError: there are more or fewer axes than panels.
    """
    if axes is None:
        return row_of_panels(columns, height, rows, **options)[1]
    given = list(np.asarray(axes, dtype=object).flat)
    if len(given) != rows * columns:
        raise ValueError(
            f"axes must be {rows * columns}, {rows} row{'s' if rows > 1 else ''} of {columns}, "
            f"got {len(given)}"
        )
    return [given[row * columns : (row + 1) * columns] for row in range(rows)]


def figure_of(ax: Axes) -> Figure:
    """Return the figure that axes are in."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def single_panel(ax: Axes | None, width: float = 6.4, height: float = 3.9) -> Axes:
    """Return the axes given, or those of a new figure."""
    if ax is not None:
        return ax
    return Figure(figsize=(width, height), layout="constrained").subplots()


def method_legend(
    place: Figure | Axes, methods: Sequence[str], *, line: Any = "solid", **options: Any
) -> None:
    """Name the methods above a figure or its only panel, up to five in a row.

    Args:
        place: the figure, with a constrained layout, or the axes.
        methods: names of the methods.
        line: line style; ``"own"`` for each method's own, ``"none"`` for markers alone, by default
            solid.
        options: options of :class:`matplotlib.lines.Line2D`.
    """
    handles = [
        Line2D(
            [], [], color=style.colour, marker=style.marker, markeredgecolor="white",
            linestyle=style.line if line == "own" else line, label=style.name, **options,
        )
        for style in (style_of(method) for method in methods)
    ]  # fmt: skip
    where: dict[str, Any] = {"loc": "outside upper center"}
    columns = panels_across(len(handles))
    if isinstance(place, Axes):
        where = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        columns = panels_across(len(handles), MOST_SIDE_BY_SIDE - 1)
    place.legend(handles=handles, ncols=columns, handletextpad=0.5, columnspacing=1.6, **where)


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a name from the data on one line, short enough for an axis.

    Example:
        >>> plain("petal\\nlength"), plain("abcdefgh", longest=5)
        ('petal length', 'abcd…')
    """
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def wrapped(text: str, inches: float) -> str:
    """Return text for the name of an axis on as many lines as it needs.

    Example:
        >>> wrapped("the first two principal components", 2.0)
        'the first two principal\\ncomponents'
    """
    return textwrap.fill(text, max(1, int(CHARACTERS * inches)))


def pale(colour: str, strength: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mix a colour with white: strength 1 is the colour, 0 is white.

    Args:
        colour: any name matplotlib knows.
        strength: one number or an array of numbers, 0 to 1.

    Returns:
        RGB, ``[..., 3]``.
    """
    weight = np.asarray(strength, dtype=np.float64)[..., None]
    mixed: np.ndarray[Any, np.dtype[np.float64]]
    mixed = weight * np.array(mpl.colors.to_rgb(colour)) + (1 - weight)
    return mixed


def subsample(examples: int, most: int) -> Sequence[int]:
    """Return at most ``most`` of the indices, evenly spread, the same ones every time."""
    return [int(i) for i in np.unique(np.linspace(0, examples - 1, min(examples, most)).round())]
