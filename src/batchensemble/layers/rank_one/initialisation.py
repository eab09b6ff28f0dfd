"""Initialisation of the members' fast weights.

==================  ==============  ============================================================
name                mode            the members are initialised to
==================  ==============  ============================================================
``"random_sign"``   multiplicative  the network with the signs of random units flipped: as different
                                    as shared weights allow, with activations of the same scale
``"normal"``        multiplicative  the network with each unit scaled by a draw of normal(1, std)
``"ones"``          multiplicative  the network itself, all the same
``"tabm"``          multiplicative  random signs on the inputs of the first layer, ones elsewhere
                                    (TabM, arXiv 2410.24210)
``"normal"``        additive        the network plus a random rank-k weight of ``std`` times its
                                    root mean square, by default 1
``"zeros"``         additive        the network itself, all the same (``s`` is zero, ``r`` random)
==================  ==============  ============================================================

Your own function takes a :class:`~batchensemble.layers.rank_one.fast_weights.FastWeights` and fills
its ``r`` and ``s`` in place; it sees which layer it starts, and is called when all layers are
known. It finds ones, or zeros in additive mode: what it leaves changes nothing.
:func:`feature_signs` and :func:`feature_normals` are such functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.layers.rank_one.fast_weights import FastWeights
from batchensemble.layers.rank_one.options import Options


def initialise(fast: FastWeights, options: Options) -> None:
    """Initialise fast weights in place.

    Raises:
        ValueError: the mode has no initialisation of this name.
    """
    functions = MULTIPLICATIVE if options.mode == "multiplicative" else ADDITIVE
    init = options.init
    with torch.no_grad():
        if callable(init):
            if isinstance(init, Deferred):
                init(fast)
            elif not fast.r.is_meta:
                _start_by(init, fast)
        else:
            name = next(iter(functions)) if init is None else one_of("init", init, functions)
            if not fast.r.is_meta:  # which has no values
                functions[name](fast)


def _start_by(init: Callable[[FastWeights], None], fast: FastWeights) -> None:
    """Call a function on fast weights that change nothing: what it does not fill stays so."""
    for vectors in (fast.r, fast.s):
        vectors.fill_(1.0 if fast.mode == "multiplicative" else 0.0)
    init(fast)


def _random_sign(fast: FastWeights) -> None:
    for vectors in (fast.r, fast.s):
        vectors.copy_(signs(vectors))


def _normal_around_one(fast: FastWeights) -> None:
    for vectors in (fast.r, fast.s):
        vectors.normal_(mean=1.0, std=fast.std)


def _ones(fast: FastWeights) -> None:
    for vectors in (fast.r, fast.s):
        vectors.fill_(1.0)


def _tabm(fast: FastWeights) -> None:
    _ones(fast)
    if fast.first:
        fast.r.copy_(signs(fast.r))


def _normal_around_zero(fast: FastWeights) -> None:
    # The entries of S R are then of the size of the weight's own, times ``std``.
    rank, inputs = fast.r.shape[1:]
    size = fast.weight.abs().pow(2).mean().sqrt()
    fast.r.normal_(std=inputs**-0.5)
    fast.s.normal_().mul_(fast.std * size * (inputs / rank) ** 0.5 / fast.scale)


def _zeros(fast: FastWeights) -> None:
    fast.r.normal_(std=fast.r.shape[2] ** -0.5)
    fast.s.zero_()


def signs(like: Tensor) -> Tensor:
    """Return random signs, -1 or 1, in the shape of ``like``."""
    return torch.randint_like(like, 2).mul_(2).sub_(1)


@dataclass(frozen=True)
class FeatureDraws:
    """One draw for each feature and member on the inputs of the first layer, ones elsewhere.

    A feature that was embedded takes several consecutive inputs, which are all scaled by the same
    draw, as with ``first_adapter_sections`` of TabM (arXiv 2410.24210).

    Attributes:
        widths: number of inputs of each feature, in their order.
        draw: ``"signs"``, -1 or 1; or ``"normals"``, of a normal, scaled for each member to a mean
            square of 1: a single feature is flipped or kept, and no member starts without any.
    """

    widths: tuple[int, ...]
    draw: Literal["signs", "normals"] = "signs"

    def __call__(self, fast: FastWeights) -> None:
        """Fill ``r`` and ``s``.

        Raises:
            ValueError: the mode is additive, or the widths are not those of the first layer.
        """
        name = f"feature_{self.draw}"
        if fast.mode != "multiplicative":
            raise ValueError(f"{name} scales features, which needs mode='multiplicative'")
        _ones(fast)
        if not fast.first:
            return
        inputs, members = fast.r.shape[1], len(fast.r)
        if sum(self.widths) != inputs:
            raise ValueError(
                f"{name} has widths that sum to {sum(self.widths)}, and the first layer with fast "
                f"weights, {fast.name!r}, has {inputs} inputs; give the number of inputs of each "
                "feature"
            )
        empty = fast.r.new_empty(members, len(self.widths))
        of_features = signs(empty) if self.draw == "signs" else _normals(empty)
        widths = torch.tensor(self.widths, device=fast.r.device)
        fast.r.copy_(of_features.repeat_interleave(widths, 1))


def _normals(like: Tensor) -> Tensor:
    """Return normal draws, each row scaled to a mean square of 1, in the shape of ``like``."""
    draws = torch.empty_like(like).normal_()
    return draws / draws.square().mean(1, keepdim=True).sqrt()


def feature_signs(widths: Sequence[int]) -> FeatureDraws:
    """Return an initialisation with one random sign a feature at the first layer, ones elsewhere.

    It is the one for features that are embedded before the ensemble begins, which ``branch_at=``
    names.

    Args:
        widths: number of inputs of the first layer that each feature takes, in their order.

    Raises:
        TypeError: a width is not a whole number.
        ValueError: one is below 1, or there are none.

    Example:
        >>> from torch import nn
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(nn.Linear(5, 2), members=2, init=feature_signs([2, 2, 1]))
        >>> first = model.network.r
        >>> bool((first[:, 0] == first[:, 1]).all()), first.abs().unique().tolist()
        (True, [1.0])
    """
    return FeatureDraws(_widths(widths))


def feature_normals(widths: Sequence[int]) -> FeatureDraws:
    """Return an initialisation like :func:`feature_signs`, with draws of a normal.

    A member then starts with some features much weaker than others; TabM starts so where numbers
    are embedded. Each member's draws are scaled to a mean square of 1, or one of a table with few
    columns could start with next to none. Arguments and errors are those of :func:`feature_signs`.

    Example:
        >>> feature_normals([2, 2, 1]).draw
        'normals'
    """
    return FeatureDraws(_widths(widths), "normals")


def _widths(widths: Sequence[int]) -> tuple[int, ...]:
    found = tuple(whole_number("widths", each) for each in widths)
    if not found:
        raise ValueError("widths must hold the width of at least one feature, got none")
    return found


class Deferred:
    """An initialisation that waits until all layers of a network are known.

    Args:
        init: the initialisation that is then called, in the order of the layers.
    """

    def __init__(self, init: Callable[[FastWeights], None]) -> None:
        self.init, self.layer = init, ""
        self.waiting: list[FastWeights] = []

    def __call__(self, fast: FastWeights) -> None:
        """Note a weight of the layer that is being made."""
        self.waiting.append(replace(fast, name=self.layer))

    def start(self) -> None:
        """Call the initialisation for each weight, with its place among them."""
        last = len(self.waiting) - 1
        with torch.no_grad():
            for index, fast in enumerate(self.waiting):
                if not fast.r.is_meta:  # which has no values
                    place = replace(fast, first=index == 0, last=index == last)
                    _start_by(self.init, place)


# The first of each is the default.
MULTIPLICATIVE = {
    "random_sign": _random_sign,
    "normal": _normal_around_one,
    "ones": _ones,
    "tabm": _tabm,
}
ADDITIVE = {"normal": _normal_around_zero, "zeros": _zeros}
