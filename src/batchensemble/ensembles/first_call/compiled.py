"""Run mode detection in a first call that ``torch.compile`` or ``torch.export`` traces.

Imported only then, since the compiler takes as long to import as torch.
"""

from __future__ import annotations

import torch

from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.first_call.detection import detect_run_mode, warn
from batchensemble.ensembles.runner import MemberRunner


def detect_between_graphs(model: MemberRunner, tiling: Tiling, arguments: Arguments) -> None:
    """Detect the run mode outside the compiled graph, if a graph break is allowed.

    Warns:
        UserWarning: the whole call must be one graph, so the run mode cannot be detected.
    """
    if not _in_one_graph():
        _detect_uncompiled(model, tiling, arguments)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _detect_uncompiled(model: MemberRunner, tiling: Tiling, arguments: Arguments) -> None:
    detect_run_mode(model, tiling, arguments)


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _in_one_graph() -> bool:
    """Return whether the call must be one graph, and warn if so; evaluated while tracing."""
    try:
        from torch._dynamo.symbolic_convert import InstructionTranslator

        if not InstructionTranslator.current_tx().one_graph:
            return False
    except Exception:  # exported without the compiler
        pass
    warn(
        "the network is compiled or exported in one graph before its first call, which would have "
        "detected whether it mixes the rows of different members; call the ensemble once on a few "
        "examples first, or give run='together' or run='one_by_one'"
    )
    return True
