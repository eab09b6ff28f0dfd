"""Detect whether the members of an ensemble can share one forward pass.

They can if the network processes each row of a batch independently. A network that folds time
before the batch, concatenates two views of it or subtracts a batch statistic mixes the rows of
different members, and nothing fails. So the first call runs a few examples both ways, all members
together and one after the other, and compares the outputs.
"""

from __future__ import annotations

import sys
import threading
import warnings

import torch
from torch import Tensor, nn

from batchensemble.core.pytree import leaves
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.first_call.mode_comparison import Finding, ModeComparison
from batchensemble.ensembles.runner import MemberRunner

# Of a network whose outputs are inconclusive, such as one that returns zeros.
MOST_ATTEMPTS = 4
LOCK = threading.RLock()
INNER_LIBRARIES = ("batchensemble.", "torch.", "jaxtyping.", "beartype.", "contextlib.")


def detect_run_mode(model: MemberRunner, tiling: Tiling, arguments: Arguments) -> None:
    """Compare both run modes on two or three examples and set the model's mode accordingly.

    Runs without gradients in evaluation mode and, if the network is in training, a second time in
    that mode without dropout. Modes, running statistics, random states and attributes of modules
    are restored, and the users' hooks are not called.

    Args:
        model: the ensemble, whose ``detection`` and ``run`` are updated.
        tiling: how the arguments of the call become rows.
        arguments: the arguments of the call.

    Warns:
        UserWarning: the members run one after the other from now on.
    """
    with LOCK:  # weights are replaced for a while, and another thread would run with them
        for training in (False, True) if model.network.training else (False,):
            if model.detection.done[training] or _is_watched(model.network, arguments):
                continue
            before, model.detection.done = model.detection.done, {False: True, True: True}
            try:
                finding = ModeComparison(model, tiling, arguments, training=training).find()
            finally:
                model.detection.done = before
                model.forget_axes()  # the twins forget them as well
            model.detection.attempts += not finding.certain
            before[training] = finding.certain or model.detection.attempts >= MOST_ATTEMPTS
            for twin, reason in finding.shared.items():
                twin.share_with_all(reason)
            if finding.run == "one_by_one":
                model.run_as("one_by_one")
                warn(_sentence(model, finding))


def _sentence(model: MemberRunner, finding: Finding) -> str:
    what = (
        f"the network fails on the rows of all members together ({finding.error})"
        if finding.error
        else "the network mixes the rows of its batch, so the members cannot share a forward pass"
    )
    where = f" {finding.divergence.text}." if finding.divergence else ""
    around = finding.divergence.around if finding.divergence else ""
    alone = f"name it in one_by_one=[{around!r}], so that only it does; or " if around else ""
    return (
        f"{what}.{where} From now on the members run one after the other, each on its own rows: "
        f"correct for any network, but {model.members} forward passes instead of 1. To avoid this, "
        f"{alone}make the network process each row independently. run='one_by_one' silences this "
        "warning, run='together' keeps one forward pass"
    )


def warn(text: str) -> None:
    """Warn with the location of the first caller outside this library and torch."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if not f"{frame.f_globals.get('__name__', '')}.".startswith(INNER_LIBRARIES):
            break
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    place = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(text, UserWarning, *place, registry=registry)


def _is_watched(network: nn.Module, arguments: Arguments) -> bool:
    """Return whether tensors hold no numbers, or operations are being counted or traced."""
    if torch._C._are_functorch_transforms_active() or torch._C._is_tracing():
        return True
    if torch._C._len_torch_dispatch_stack():
        return True
    tensors = [leaf for _, leaf in leaves(arguments.values) if isinstance(leaf, Tensor)]
    return any(
        each.is_meta or type(each).__name__ in ("FakeTensor", "DTensor")
        for each in (*tensors, *network.parameters())
    )
