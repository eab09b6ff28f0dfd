"""The first call where ``torch.compile`` or ``torch.export`` follows it, but not the look.

Imported while they do, since the compiler takes as long to import as torch.
"""

from __future__ import annotations

import torch

from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.first_call.look import look, warn
from batchensemble.ensembles.runner import MemberRunner


def look_between_graphs(model: MemberRunner, tiling: Tiling, arguments: Arguments) -> None:
    """Look between two graphs, if there may be two.

    Warns:
        UserWarning: all is to be one graph, in which nobody can look.
    """
    if not _in_one_graph():
        _look_unfollowed(model, tiling, arguments)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _look_unfollowed(model: MemberRunner, tiling: Tiling, arguments: Arguments) -> None:
    look(model, tiling, arguments)


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _in_one_graph() -> bool:
    """Tell whether all is one graph, and warn then; runs while the graph is made, not in it."""
    try:
        from torch._dynamo.symbolic_convert import InstructionTranslator

        if not InstructionTranslator.current_tx().one_graph:
            return False
    except Exception:  # exported without the compiler
        pass
    warn(
        "the network is compiled or exported in one graph before its first call, which would have "
        "found out whether it mixes its members; call the ensemble once on a few examples before, "
        "or give run='together' or run='one_by_one'"
    )
    return True
