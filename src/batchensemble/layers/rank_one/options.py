"""What a conversion lets the members own, and how that starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from batchensemble.core.arguments import one_of, positive_number, whole_number
from batchensemble.layers.rank_one.arithmetic import Space
from batchensemble.layers.rank_one.fast_weights import FastWeights, Mode, Owner

Initialisation = str | Callable[[FastWeights], None]


@dataclass(frozen=True)
class Options:
    """The arguments of every rank-one twin.

    Attributes:
        mode: ``"multiplicative"``: ``W ∘ (s_m r_mᵀ)``; ``"additive"``: ``W + (alpha / rank)
            S_mᵀ R_m``.
        rank: vectors a member and side; more than 1 only in additive mode.
        alpha: scale of the additive part; by default ``rank``, so that the factor is 1.
        init: how the fast weights start, see :mod:`batchensemble.layers.rank_one.initialisation`;
            ``None`` is the mode's default.
        std: standard deviation of the ``"normal"`` start: of the factors around 1, by default 0.5;
            in additive mode of what is added, over the size of the weight, by default 1.
        bias: ``"member"``: one a member, all starting as the layer's; ``"shared"``: the layer's.
        norm: the same for the weights of norm layers and of ``PReLU``.
        batch_axis: the axis of the rows, 1 where the sequence comes first.
        space: what linear layers and convolutions bend in multiplicative mode, which changes their
            speed alone: ``"activation"``, ``"weight"``, or ``"auto"``, whichever is cheaper for the
            shapes at hand.
    """

    mode: Mode = "multiplicative"
    rank: int = 1
    alpha: float | None = None
    init: Initialisation | None = None
    std: float | None = None
    bias: Owner = "member"
    norm: Owner = "member"
    batch_axis: int = 0
    space: Space = "auto"

    def __post_init__(self) -> None:
        one_of("mode", self.mode, ("multiplicative", "additive"))
        one_of("bias", self.bias, ("member", "shared"))
        one_of("norm", self.norm, ("member", "shared"))
        one_of("space", self.space, ("auto", "activation", "weight"))
        if self.space != "auto" and self.mode == "additive":
            raise ValueError(f"space needs mode='multiplicative', got space={self.space!r}")
        if whole_number("rank", self.rank) > 1 and self.mode == "multiplicative":
            raise ValueError(
                f"rank above 1 needs mode='additive', got rank={self.rank} and mode={self.mode}"
            )
        if self.alpha is not None:
            positive_number("alpha", self.alpha)
            if self.mode == "multiplicative":
                raise ValueError(f"alpha needs mode='additive', got mode={self.mode}")
        if self.std is not None:
            positive_number("std", self.std)
            default = "random_sign" if self.mode == "multiplicative" else "normal"
            if (self.init or default) != "normal":
                raise ValueError(f"std needs init='normal', got init={self.init!r}")
        if self.batch_axis not in (0, 1):
            raise ValueError(f"batch_axis must be 0 or 1, got {self.batch_axis}")

    def by_name(self) -> dict[str, Any]:
        """Return the options by name: the keyword arguments of every rank-one twin.

        Example:
            >>> Options(**Options(rank=2, mode="additive").by_name()).rank
            2
        """
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def spread(self) -> float:
        """The standard deviation of the ``"normal"`` start."""
        default = 0.5 if self.mode == "multiplicative" else 1.0
        return default if self.std is None else self.std

    @property
    def scale(self) -> float:
        """The factor of the additive part."""
        return 1.0 if self.alpha is None else self.alpha / self.rank
