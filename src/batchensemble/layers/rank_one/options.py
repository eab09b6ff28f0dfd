"""The options of rank-one layers."""

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
        rank: rank k of each member's weight change; above 1 only in additive mode.
        alpha: scale of the additive part; ``None``: ``rank``, so that the factor is 1.
        init: initialisation of the fast weights, by name or as a function, see
            :mod:`batchensemble.layers.rank_one.initialisation`; ``None``: the mode's default.
        std: standard deviation of ``init="normal"``: of the factors, by default 0.5; in additive
            mode of the added weight relative to the shared one, by default 1.
        bias: ``"member"``: each member has its own, initialised as the layer's; ``"shared"``: one
            for all.
        norm: the same for the weights of norm layers and of ``PReLU``.
        batch_axis: axis of the rows, 0, or 1 if the sequence comes first.
        space: what linear layers and convolutions scale in multiplicative mode: ``"activation"``,
            ``"weight"``, or ``"auto"``, whichever is cheaper for the shapes. It affects speed only.
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
        """The standard deviation of ``init="normal"``."""
        default = 0.5 if self.mode == "multiplicative" else 1.0
        return default if self.std is None else self.std

    @property
    def scale(self) -> float:
        """The factor of the additive part."""
        return 1.0 if self.alpha is None else self.alpha / self.rank
