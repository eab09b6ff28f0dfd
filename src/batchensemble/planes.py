"""A plane through the features, to draw what a network says everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from batchensemble.data import Data

GRID = 120  # points on each side of the plane that the decision maps show


@dataclass(frozen=True)
class Plane:
    """A grid over two axes of the features, to draw what a network says everywhere.

    Attributes:
        x, y: the grid's coordinates on each axis, ``[GRID]``.
        points: the grid in the space of the features, row by row, ``[GRID * GRID, features]``.
        held_out: the held-out examples on these two axes, ``[examples, 2]``.
        axes: the names of the axes.
        projected: whether the axes are principal components, since there are more features.
    """

    x: Float[np.ndarray, "grid"]
    y: Float[np.ndarray, "grid"]
    points: Float[np.ndarray, "points features"]
    held_out: Float[np.ndarray, "examples 2"]
    axes: tuple[str, str]
    projected: bool


def make_plane(data: Data) -> Plane | None:
    """Return a grid over the held-out examples: two features, or two principal components."""
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
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low - margin, high + margin, strict=True))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    if pca is not None:
        points = pca.inverse_transform(points)
    return Plane(x, y, points.astype(np.float32), shown, axes, pca is not None)
