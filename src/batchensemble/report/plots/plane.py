"""Predictions over two axes of the features: classes, epistemic uncertainty, members."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import (
    Colormap,
    LinearSegmentedColormap,
    ListedColormap,
    LogNorm,
    Normalize,
    to_rgb,
)
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from scipy.ndimage import distance_transform_edt, zoom

from batchensemble.comparison.planes import Line, Plane
from batchensemble.comparison.results import Comparison, Run
from batchensemble.predictions import Prediction
from batchensemble.report.plots.style import (
    FAINT,
    INK,
    drawing,
    figure_of,
    pale,
    panels_across,
    panels_of,
    plain,
    style_of,
    subsample,
    wrapped,
)

PLANE_POINTS = 1500
MOST_CLASSES_NAMED = 12
# Purple to orange: distinct without red and green, and the colour of no method.
PROBABILITY = LinearSegmentedColormap.from_list(
    "probability", ["#A59BCB", "#D3CEE6", "#F9F9F9", "#FBD9AC", "#F2AE5E"]
)
BINARY_COLOURS = ("#2D004B", "#7F3B08")
EPISTEMIC = LinearSegmentedColormap.from_list(
    "epistemic", ["#FFFFFF", "#D6E6E9", "#8BB9C2", "#3A7F8F", "#0A3A48"]
)
LOWEST_SHOWN = 1e-4  # nats; less is drawn as this
PROJECTED = "Axes: the first two principal components; the others are held at their mean."
# Petroff 2021, arXiv 2107.02270: ten colours for colour-blind readers.
CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
CLASS_MARKERS = "osD^vPX<>p"
# A region needs this many grid steps around its middle to carry its class's name.
ROOM_FOR_A_NAME = 5


def drawable(plane: Plane | Line | None) -> bool:
    """Return whether there is a plane to draw, with two axes of some extent."""
    if not isinstance(plane, Plane):
        return False
    return bool(plane.x[0] < plane.x[-1] and plane.y[0] < plane.y[-1])


@drawing()
def plane(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw each method's mean probabilities over the plane, and below the mutual information.

    With two classes: the probability of the second. With more: the colour and name of the predicted
    class, paler where it is less probable. Below: the epistemic uncertainty in nats, on one scale
    for all methods.

    Args:
        comparison: a comparison with at least one finished run.
        axes: two rows of axes, one column for each method; by default those of a new figure.

    Returns:
        The axes drawn into, row by row.

    Raises:
        ValueError: the data have no plane, see :func:`drawable`.
    """
    grid = _plane(comparison)
    runs = [comparison.of(method)[0] for method in comparison.methods]
    upper, lower = panels_of(axes, len(runs), 5.6, rows=2, sharex=True, sharey=True)
    figure = figure_of(upper[0])
    highest = max(float(run.plane.epistemic.max()) for run in runs if run.plane)
    scale = LogNorm(LOWEST_SHOWN, max(highest, 10 * LOWEST_SHOWN))
    binary = comparison.data.classes == 2
    for top, bottom, run in zip(upper, lower, runs, strict=True):
        top.set_title(style_of(run.method).name)
        (_probability if binary else _classes)(top, grid, run, comparison)
        _held_out(top, grid, comparison)
        _epistemic(bottom, grid, run, scale)
    _label_axes(figure, grid, [upper[0], lower[0]])
    across = panels_across(len(runs)) if axes is None else len(runs)
    if binary:
        name = plain(comparison.data.class_names[1], 16)
        _colour_bar(
            figure, upper[:across], PROBABILITY, Normalize(0, 1), f"probability of class {name}"
        )
    else:
        greys = ListedColormap(pale(INK, _strength(np.linspace(0, 1, 64))))
        _colour_bar(figure, upper[:across], greys, Normalize(0, 1), "probability of the top class")
    _colour_bar(figure, lower[:across], EPISTEMIC, scale, "mutual information (nats)")
    _class_legend(figure, comparison)
    return [*upper, *lower]


@drawing()
def members(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw the decision boundary of each member, a panel for each method.

    The thick pale line is the boundary of the members' mean probabilities.

    Args:
        comparison: a comparison with at least one finished run.
        axes: axes to draw into, one for each method; by default those of a new figure.

    Returns:
        The axes drawn into, row by row.

    Raises:
        ValueError: the data have no plane, see :func:`drawable`.
    """
    grid = _plane(comparison)
    runs = [comparison.of(method)[0] for method in comparison.methods]
    [panels] = panels_of(axes, len(runs), 3.4, sharex=True, sharey=True)
    for ax, run in zip(panels, runs, strict=True):
        style, prediction = style_of(run.method), _on_plane(run)
        _held_out(ax, grid, comparison, faint=True)
        _boundary(ax, grid, prediction.probs, colors=[pale(style.colour, 0.3)], linewidths=5)
        for member in range(prediction.members):
            _boundary(
                ax, grid, prediction.member_probs[:, member], colors=style.colour, linewidths=1
            )
        count = "1 member" if prediction.members == 1 else f"{prediction.members} members"
        ax.set_title(f"{style.name}, {count}" if prediction.members > 1 else style.name)
        ax.set(xlim=(grid.x[0], grid.x[-1]), ylim=(grid.y[0], grid.y[-1]))
    _label_axes(figure_of(panels[0]), grid, panels[:1])
    return panels


def _plane(comparison: Comparison) -> Plane:
    if not isinstance(comparison.plane, Plane) or not drawable(comparison.plane):
        raise ValueError(
            "the data have no plane to draw: at least two features that vary are needed, got "
            f"{comparison.data.features} features"
        )
    return comparison.plane


def _on_plane(run: Run) -> Prediction:
    assert isinstance(run.plane, Prediction)
    return run.plane


def _on_grid(values: np.ndarray, grid: Plane) -> np.ndarray:
    return values.reshape(len(grid.y), len(grid.x), *values.shape[1:])


def _extent(grid: Plane) -> tuple[float, float, float, float]:
    return float(grid.x[0]), float(grid.x[-1]), float(grid.y[0]), float(grid.y[-1])


def _probability(ax: Axes, grid: Plane, run: Run, comparison: Comparison) -> None:
    probs = _on_plane(run).probs
    ax.pcolormesh(
        grid.x, grid.y, _on_grid(probs[:, 1], grid),
        cmap=PROBABILITY, vmin=0, vmax=1, shading="gouraud", rasterized=True,
    )  # fmt: skip
    _boundary(ax, grid, probs, colors=INK, linewidths=0.9)


def _classes(ax: Axes, grid: Plane, run: Run, comparison: Comparison) -> None:
    probs = _on_plane(run).probs
    # Finer than the grid, so that the colours end where the lines are.
    fine = zoom(_on_grid(probs, grid), (3, 3, 1), order=1)
    colours = np.array([to_rgb(_class_colour(k)) for k in range(fine.shape[-1])])
    strength = _strength(fine.max(-1))[..., None]
    image = strength * colours[fine.argmax(-1)] + 1 - strength
    ax.imshow(image, origin="lower", extent=_extent(grid), aspect="auto", rasterized=True)
    _boundary(ax, grid, probs, colors="white", linewidths=1)
    labels = _on_grid(_on_plane(run).labels, grid)
    for number in np.unique(labels):
        _name_region(ax, grid, labels == number, comparison.data.class_names[number])


def _strength(probability: Any) -> Any:
    """Map a probability to the strength of a class's colour, pale enough for points on it."""
    return 0.04 + 0.46 * np.asarray(probability)


def _name_region(ax: Axes, grid: Plane, region: np.ndarray, name: str) -> None:
    """Write a class's name at the point of its region that is farthest from the edge."""
    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    if depth.max() < ROOM_FOR_A_NAME:
        return
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    ax.text(
        float(grid.x[column]), float(grid.y[row]), plain(name, 12), parse_math=False,
        ha="center", va="center", fontsize=10, fontweight="bold", zorder=5,
        path_effects=[Stroke(linewidth=2.5, foreground="white"), Normal()],
    )  # fmt: skip


def _boundary(
    ax: Axes, grid: Plane, probs: np.ndarray, *, halo: bool = False, **options: Any
) -> None:
    """Draw the lines between the most probable classes.

    The margin of a class over the best other one is 0 there; in logs it is nearly straight, so
    that the lines come out smooth on a coarse grid.
    """
    logs = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
    classes = [1] if probs.shape[1] == 2 else range(probs.shape[1])
    for number in classes:
        margin = _on_grid(logs[:, number] - np.delete(logs, number, axis=1).max(1), grid)
        if margin.min() < 0 < margin.max():
            lines = ax.contour(grid.x, grid.y, margin, levels=[0], **options)
            if halo:
                lines.set_path_effects([Stroke(linewidth=2.2, foreground="white"), Normal()])


def _held_out(ax: Axes, grid: Plane, comparison: Comparison, *, faint: bool = False) -> None:
    shown = subsample(len(grid.held_out), PLANE_POINTS)
    points, labels = grid.held_out[shown], comparison.data.held_out[1][shown]
    for number in np.unique(labels):
        own = points[labels == number]
        colour = _point_colour(int(number), comparison.data.classes)
        ax.scatter(
            own[:, 0], own[:, 1], marker=CLASS_MARKERS[number % len(CLASS_MARKERS)],
            s=7 if faint else 10 if len(shown) > 600 else 16, color=FAINT if faint else colour,
            edgecolors="none" if faint else "white", linewidths=0.4, rasterized=True,
        )  # fmt: skip


def _class_colour(number: int) -> str:
    return CLASS_COLOURS[number % len(CLASS_COLOURS)]


def _point_colour(number: int, classes: int) -> str:
    return BINARY_COLOURS[number] if classes == 2 else _class_colour(number)


def _epistemic(ax: Axes, grid: Plane, run: Run, scale: LogNorm) -> None:
    if _on_plane(run).members == 1:
        ax.text(0.5, 0.5, "one member:\nalways 0", transform=ax.transAxes, ha="center", va="center")
        return
    ax.pcolormesh(
        grid.x, grid.y, _on_grid(np.maximum(_on_plane(run).epistemic, LOWEST_SHOWN), grid),
        cmap=EPISTEMIC, norm=scale, shading="gouraud", rasterized=True,
    )  # fmt: skip
    _boundary(ax, grid, _on_plane(run).probs, colors=INK, linewidths=0.8, halo=True)


def _label_axes(figure: Figure, grid: Plane, left: list[Axes]) -> None:
    width = figure.get_figwidth()
    below = wrapped(plain(grid.axes[0], 60), width)
    if grid.projected:
        below += "\n" + wrapped(PROJECTED, width)
    figure.supxlabel(below, fontsize=9.5, parse_math=False)
    for ax in left:
        ax.set_ylabel(plain(grid.axes[1]), parse_math=False)


def _colour_bar(
    figure: Figure, axes: list[Axes], cmap: Colormap, scale: Normalize, name: str
) -> None:
    # The lowest colour of a log scale is also that of smaller values.
    extend = "min" if isinstance(scale, LogNorm) else "neither"
    bar = figure.colorbar(
        ScalarMappable(scale, cmap), ax=axes, pad=0.01, fraction=0.05, aspect=18, extend=extend
    )
    bar.set_label(name, parse_math=False)
    bar.outline.set_visible(False)


def _class_legend(figure: Figure, comparison: Comparison) -> None:
    """Add a legend of the classes above the panels, unless there are too many."""
    names = comparison.data.class_names
    if len(names) > MOST_CLASSES_NAMED:
        return
    handles = [
        Line2D(
            [], [], linestyle="", marker=CLASS_MARKERS[number % len(CLASS_MARKERS)],
            color=_point_colour(number, len(names)), markeredgecolor="white", markersize=7,
            label=plain(name, 14),
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    columns = min(len(names), int(figure.get_figwidth()))
    legend = figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, handletextpad=0.1,
        title="held-out examples of class", title_fontsize=9,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
