"""Diversity of the members' weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from batchensemble.core.dtensor import whole
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.convert import twins
from batchensemble.layers import RankOne


@dataclass(frozen=True)
class WeightDiversity:
    """Cosine similarities of the members' weights, layer by layer.

    Attributes:
        cosines: cosine similarities by name of the weight, ``[members, members]``, −1 to 1. NaN
            for a member whose weights there are all 0.
        together: cosine similarities of all these weights as one vector, ``[members, members]``.
        fast_weight_spread: root mean squared deviation of the fast weights from their mean over the
            members, relative to their root mean square, 0 to 1; ``None`` for methods without.
    """

    cosines: dict[str, Float[np.ndarray, "members members"]]
    together: Float[np.ndarray, "members members"]
    fast_weight_spread: float | None

    @property
    def mean_cosines(self) -> dict[str, float]:
        """Mean cosine similarity of two members, by name of the weight; 1 for one member."""
        return {name: _over_pairs(each) for name, each in self.cosines.items()}

    @property
    def mean_cosine(self) -> float:
        """Mean cosine similarity of two members, all weights as one vector; 1 for one member."""
        return _over_pairs(self.together)


def weight_diversity(model: Ensemble) -> WeightDiversity:
    """Return the diversity of the members' weights, and of their fast weights.

    The weights are those of ``model.member(i)``, so a rank-one member's are its own W_m. Only
    weights with two or more axes are compared: those of layers, not of biases and norms. Weights
    that all members share have cosine similarities of 1.

    Weights tell less than predictions (:func:`batchensemble.metrics.diversity`): two networks whose
    hidden units are permuted or have other signs compute the same with a similarity near 0. A
    similarity near 1 throughout does mean that the members are one model.

    Args:
        model: any ensemble; it is not changed. Its members are held in memory as plain networks.

    Raises:
        ValueError: no weight has two axes.

    Example:
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(torch.nn.Linear(2, 3), members=2, init="ones")
        >>> round(weight_diversity(model).mean_cosine, 4)
        1.0
    """
    members = [model.member(index) for index in range(model.members)]
    # A weight that two layers share is there once, under the first one's name.
    of_members: list[dict[str, Tensor]] = [dict(each.named_parameters()) for each in members]
    products = {
        name: _products([weights[name] for weights in of_members])
        for name, weight in of_members[0].items()
        if weight.dim() > 1
    }
    if not products:
        raise ValueError("the network must have a weight of two axes to compare, got none")
    return WeightDiversity(
        {name: _cosines(each) for name, each in products.items()},
        _cosines(sum(products.values(), np.zeros_like(next(iter(products.values()))))),
        fast_weight_spread(model),
    )


def _products(weights: list[Tensor]) -> Float[np.ndarray, "members members"]:
    """Return the inner products of the members' weights of one layer, in float64."""
    flat = torch.stack([weight.detach().flatten().double().cpu() for weight in weights])
    return (flat @ flat.T).numpy()


def _cosines(
    products: Float[np.ndarray, "members members"],
) -> Float[np.ndarray, "members members"]:
    lengths = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore"):
        return np.clip(products / (lengths[:, None] * lengths), -1, 1)


def _over_pairs(matrix: Float[np.ndarray, "members members"]) -> float:
    pairs = matrix[~np.eye(len(matrix), dtype=bool)]
    return float(pairs.mean()) if len(pairs) else 1.0


def fast_weight_spread(model: Ensemble) -> float | None:
    """Return the spread of the fast weights relative to their size; ``None`` without any."""
    spread = size = 0.0
    for _, twin in twins(model.network):
        for each in twin.modules():
            if isinstance(each, RankOne):
                for name in each.layouts:
                    fast = each.fast_weights(name)
                    for vectors in (
                        whole(fast.r.detach()).double(),
                        whole(fast.s.detach()).double(),
                    ):
                        spread += (vectors - vectors.mean(0)).square().sum().item()
                        size += vectors.square().sum().item()
    return math.sqrt(spread / size) if size else None
