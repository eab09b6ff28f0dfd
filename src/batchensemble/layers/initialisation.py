"""How a member's fast weights start.

==================  ==============  ============================================================
name                mode            the members start as
==================  ==============  ============================================================
``"random_sign"``   multiplicative  the network with random units mirrored: as far apart as the
                                    weights of one network allow, with activations of one scale
``"normal"``        multiplicative  the network with each unit scaled by a draw of normal(1, 0.5)
``"ones"``          multiplicative  the network itself, all the same
``"normal"``        additive        the network plus a random rank-k weight of about its own size
``"zeros"``         additive        the network itself, all the same (``s`` is zero, ``r`` random)
==================  ==============  ============================================================

A function of your own takes the twin and fills its parameters ``weight``, ``r``, ``s``, ``bias``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from batchensemble.checks import one_of

if TYPE_CHECKING:
    from batchensemble.layers.linear import RankOneLinear

Mode = Literal["multiplicative", "additive"]
Initialisation = str | Callable[["RankOneLinear"], None]


def initialise(layer: RankOneLinear, init: Initialisation | None) -> None:
    """Fill the fast weights of ``layer`` in place; ``None`` stands for the mode's default."""
    functions = MULTIPLICATIVE if layer.mode == "multiplicative" else ADDITIVE
    with torch.no_grad():
        if callable(init):
            init(layer)
        else:
            name = next(iter(functions)) if init is None else one_of("init", init, functions)
            functions[name](layer)


def _random_sign(layer: RankOneLinear) -> None:
    for fast in (layer.r, layer.s):
        fast.copy_(_signs(fast))


def _normal_around_one(layer: RankOneLinear) -> None:
    for fast in (layer.r, layer.s):
        fast.normal_(mean=1.0, std=0.5)


def _ones(layer: RankOneLinear) -> None:
    for fast in (layer.r, layer.s):
        fast.fill_(1.0)


def _normal_around_zero(layer: RankOneLinear) -> None:
    # The entries of S R then have the standard deviation of the weight's own default start.
    rank, inputs = layer.r.shape[1:]
    layer.r.normal_(std=inputs**-0.5)
    layer.s.normal_(std=(3 * rank) ** -0.5)


def _zeros(layer: RankOneLinear) -> None:
    layer.r.normal_(std=layer.r.shape[2] ** -0.5)
    layer.s.zero_()


def _signs(like: Tensor) -> Tensor:
    return torch.randint_like(like, 2).mul_(2).sub_(1)


# The first of each is the default.
MULTIPLICATIVE = {"random_sign": _random_sign, "normal": _normal_around_one, "ones": _ones}
ADDITIVE = {"normal": _normal_around_zero, "zeros": _zeros}
