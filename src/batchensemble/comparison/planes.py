"""Where predictions are drawn: a plane through the features, or a line of the only one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from batchensemble.data.datasets import Data

PLANE_GRID = 120  # points along each side of the plane
LINE = 400  # points of the line
BEYOND = 0.25  # how far the line goes on beyond the examples, as a share of their range


@dataclass(frozen=True)
class Plane:
    """A grid over two axes of the features, to draw predictions on.

    Attributes:
        x, y: coordinates of the grid on each axis, ``[GRID]``.
        points: the grid in the space of the features, row by row, ``[GRID * GRID, features]``.
        held_out: the held-out examples on these two axes, ``[examples, 2]``.
        axes: names of the axes.
        projected: whether the axes are principal components, with more than two features.
    """

    x: Float[np.ndarray, "grid"]
    y: Float[np.ndarray, "grid"]
    points: Float[np.ndarray, "points features"]
    held_out: Float[np.ndarray, "examples 2"]
    axes: tuple[str, str]
    projected: bool


@dataclass(frozen=True)
class Line:
    """The only feature, from below its smallest training example to above its largest.

    Attributes:
        x: values of the feature, in its own unit, ``[LINE]``.
        points: the same as inputs of a network, ``[LINE, 1]``.
        examples: the feature of the training examples, in its own unit, ``[examples]``.
    """

    x: Float[np.ndarray, "line"]
    points: Float[np.ndarray, "line 1"]
    examples: Float[np.ndarray, "examples"]


def make_plane(data: Data) -> Plane | Line | None:
    """Return where predictions are drawn; ``None`` where they cannot be.

    Between the inputs of a category or a flag there is nothing, so all features must be numbers.
    For classes a grid over the held-out examples: two features, or two principal components. For
    numbers a line, if there is one feature.
    """
    inputs = None if data.encoding is None else data.encoding.inputs
    if inputs is not None and inputs.numbers < inputs.width:
        return None
    if data.task == "regression":
        return _line(data) if data.features == 1 else None
    if data.features < 2:
        return None
    if data.features == 2:
        shown = data.held_out[0]
        axes = (data.feature_names[0], data.feature_names[1])
        pca = None
    else:
        pca = PCA(2).fit(data.train[0])
        shown = pca.transform(data.held_out[0])
        shares = [f"{share:.0%}" for share in pca.explained_variance_ratio_]
        axes = (
            f"principal component 1 ({shares[0]} of the variance)",
            f"principal component 2 ({shares[1]})",
        )
    low, high = shown.min(0), shown.max(0)
    margin = 0.15 * (high - low)
    x, y = (np.linspace(a, b, PLANE_GRID) for a, b in zip(low - margin, high + margin, strict=True))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    if pca is not None:
        points = pca.inverse_transform(points)
    return Plane(x, y, points.astype(np.float32), shown, axes, pca is not None)


def _line(data: Data) -> Line:
    low, high = (float(each) for each in (data.train[0].min(), data.train[0].max()))
    beyond = BEYOND * (high - low)
    points = np.linspace(low - beyond, high + beyond, LINE)
    return Line(
        _in_its_unit(data, points),
        points[:, None].astype(np.float32),
        _in_its_unit(data, data.train[0][:, 0].astype(np.float64)),
    )


def _in_its_unit(data: Data, values: Float[np.ndarray, "values"]) -> Float[np.ndarray, "values"]:
    """Return values of the only input in the unit of its column."""
    if data.encoding is None:
        return values
    (one,) = data.encoding.used
    if data.encoding.layout == "plain":
        return one.mean + one.scale * values
    numbers, normal = np.array(one.knots), np.array(one.normal)
    inside: Float[np.ndarray, "values"] = np.interp(values, normal, numbers)
    # Beyond its ends the curve goes on at the slope of its middle.
    slope = (numbers[-1] - numbers[0]) / max(normal[-1] - normal[0], 1e-12)
    inside += slope * (values - np.clip(values, normal[0], normal[-1]))
    return inside
