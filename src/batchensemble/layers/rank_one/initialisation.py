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
its ``r`` and ``s`` in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from batchensemble.core.arguments import one_of
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
            init(fast)
        else:
            name = next(iter(functions)) if init is None else one_of("init", init, functions)
            if not fast.r.is_meta:  # which has no values
                functions[name](fast)


def _random_sign(fast: FastWeights) -> None:
    for vectors in (fast.r, fast.s):
        vectors.copy_(signs(vectors))


def _normal_around_one(fast: FastWeights) -> None:
    for vectors in (fast.r, fast.s):
        vectors.normal_(mean=1.0, std=fast.std)


def _ones(fast: FastWeights) -> None:
    for vectors in (fast.r, fast.s):
        vectors.fill_(1.0)


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


# The first of each is the default. For "tabm", conversion sets the signs of the first layer.
MULTIPLICATIVE = {
    "random_sign": _random_sign,
    "normal": _normal_around_one,
    "ones": _ones,
    "tabm": _ones,
}
ADDITIVE = {"normal": _normal_around_zero, "zeros": _zeros}
