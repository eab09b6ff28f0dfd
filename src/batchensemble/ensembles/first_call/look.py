"""The first call: does a network treat its rows one by one, so that all members may go together?

A network may fold time before the batch, concatenate two views of it, or take something off that
the whole batch has in common. The rows of one member then meet those of another, or another's fast
weights, and no error tells. So the first call runs a few examples both ways, all members together
and one after the other, and goes by what it finds.
"""

from __future__ import annotations

import sys
import threading
import warnings

import torch
from torch import Tensor, nn

from batchensemble.core.pytree import leaves
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.first_call.both_ways import BothWays, Finding
from batchensemble.ensembles.runner import MemberRunner

# How often a network is looked at whose outputs tell nothing, such as one that returns zeros.
MOST_LOOKS = 4
LOOKING = threading.RLock()
LIBRARIES = ("batchensemble.", "torch.", "jaxtyping.", "beartype.", "contextlib.")


def look(model: MemberRunner, tiling: Tiling, arguments: Arguments) -> None:
    """Find out on two or three examples how the members of an ensemble run, and let it run so.

    Runs in evaluation mode, and where the network is in training, once more in that mode without
    dropout; without gradients. Modes, statistics, random states and what modules keep in attributes
    stay as they are, and the users' hooks are not called.

    Args:
        model: is told what was found.
        tiling: of the call.
        arguments: of the call.

    Warns:
        UserWarning: the members run one after the other from now on.
    """
    with LOOKING:  # weights are exchanged for a while, and another thread would run with them
        for training in (False, True) if model.network.training else (False,):
            if model.looks.done[training] or _is_watched(model.network, arguments):
                continue
            before, model.looks.done = model.looks.done, {False: True, True: True}
            try:
                finding = BothWays(model, tiling, arguments, training=training).find()
            finally:
                model.looks.done = before
                model.forget_axes()  # the twins forget them as well
            model.looks.times += not finding.certain
            before[training] = finding.certain or model.looks.times >= MOST_LOOKS
            for twin, reason in finding.for_all.items():
                twin.share_with_all(reason)
            if finding.run == "one_by_one":
                model.run_as("one_by_one")
                warn(_sentence(model, finding))


def _sentence(model: MemberRunner, finding: Finding) -> str:
    what = (
        f"the network does not take the rows of all members together ({finding.error})"
        if finding.error
        else "the network mixes the rows of its batch, and so the members"
    )
    where = f" {finding.parting.text}." if finding.parting else ""
    around = finding.parting.around if finding.parting else ""
    alone = f"name it in one_by_one=[{around!r}], so that only it does; or " if around else ""
    return (
        f"{what}.{where} From now on the members run one after the other, each with its own rows, "
        f"which is right for any network: {model.members} calls of the network instead of 1. To "
        f"pay less, {alone}let it treat its rows one by one. run='one_by_one' asks for this "
        "without a warning, run='together' for one call all the same"
    )


def warn(text: str) -> None:
    """Warn in the name of the first caller outside of this library and torch."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if not f"{frame.f_globals.get('__name__', '')}.".startswith(LIBRARIES):
            break
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    place = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(text, UserWarning, *place, registry=registry)


def _is_watched(network: nn.Module, arguments: Arguments) -> bool:
    """Tell whether tensors hold no numbers, or somebody counts or traces what runs."""
    if torch._C._are_functorch_transforms_active() or torch._C._is_tracing():
        return True
    if torch._C._len_torch_dispatch_stack():
        return True
    tensors = [leaf for _, leaf in leaves(arguments.values) if isinstance(leaf, Tensor)]
    return any(
        each.is_meta or type(each).__name__ in ("FakeTensor", "DTensor")
        for each in (*tensors, *network.parameters())
    )
