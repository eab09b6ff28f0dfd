"""BatchEnsemble: one network, bent for each member by rank-one fast weights."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from batchensemble.checks import one_of, whole_number
from batchensemble.convert import Rules, convert
from batchensemble.ensembles.base import Ensemble, count_parameters
from batchensemble.layers.initialisation import Initialisation, Mode
from batchensemble.layers.linear import Bias


class BatchEnsemble(Ensemble):
    """Members that share their weights and own two vectors a layer (arXiv 2002.06715).

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]`` and whose layers with
            weights are ``nn.Linear``; it is copied, and its weights become the shared ones.
        members: how many (M).
        mode: ``"multiplicative"``: ``W ∘ (s_m r_mᵀ)``; ``"additive"``: ``W + S_mᵀ R_m``.
        rank: vectors a member and side; more than 1 only in additive mode.
        init: how the fast weights start, see :mod:`batchensemble.layers.initialisation`.
        bias: ``"member"``: one a member; ``"shared"``: one for all.
        independent: modules, by name, of which each member gets its own, drawn anew.
        exclude: modules, by name, that all members share as they are.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range, a name is not in the network, or a layer with
            weights has no rank-one twin.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> BatchEnsemble(net, members=4, independent=["0"])(torch.zeros(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        mode: Mode = "multiplicative",
        rank: int = 1,
        init: Initialisation | None = None,
        bias: Bias = "member",
        independent: Collection[str] = (),
        exclude: Collection[str] = (),
    ) -> None:
        members = whole_number("members", members)
        one_of("mode", mode, ("multiplicative", "additive"))
        one_of("bias", bias, ("member", "shared"))
        if whole_number("rank", rank) > 1 and mode == "multiplicative":
            raise ValueError(f"rank above 1 needs mode='additive', got rank={rank} and mode={mode}")
        options = {"mode": mode, "rank": rank, "init": init, "bias": bias}
        rules = Rules("rank_one", independent, exclude, options)
        super().__init__(convert(network, members, rules), members, count_parameters(network))
