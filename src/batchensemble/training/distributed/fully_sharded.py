"""Fully sharded data parallel: each process holds a piece of every weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from batchensemble.core.dtensor import whole
from batchensemble.ensembles import Ensemble
from batchensemble.training.distributed.data_parallel import DataParallel
from batchensemble.training.distributed.fsdp import shard_ensemble
from batchensemble.training.distributed.processes import (
    Processes,
    reporting_lost_process,
    split_evenly,
)
from batchensemble.training.history import History
from batchensemble.training.plan import TrainingPlan

# Options of fit that sharded weights do not support, and why.
NEEDS_WHOLE = {
    "clip": "needs the norm of each member's whole gradient",
    "average": "keeps a copy of the whole weights",
    "compile": "traces the whole weights",
}


class FullySharded(DataParallel):
    """Fully sharded data parallel (Zhao et al. 2023, arXiv 2304.11277).

    Each process takes some rows of each batch, and holds a piece of every weight, of its gradient
    and of its optimiser state. A copy is trained, so that the ensemble itself has whole weights
    before and after.

    Raises:
        ImportError: torch is too old.
        ValueError: the weights cannot be cut into pieces.
    """

    sharded = True

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        super().__init__(model, processes)
        self.model = shard_ensemble(model, processes.device)

    @classmethod
    def place(cls, device: torch.device) -> torch.device:
        """Return the device of the processes: a large network may have been made on another."""
        return torch.device("cuda") if torch.cuda.is_available() else device

    def check(self, plan: TrainingPlan) -> None:
        """Raise ``ValueError`` for an option that needs whole weights."""
        for name, reason in NEEDS_WHOLE.items():
            if getattr(plan, name):
                raise ValueError(
                    f"{name}= {reason}, which strategy='fsdp' leaves in pieces on the processes; "
                    "leave one of them out"
                )
        if plan.precision == "fp16":
            raise ValueError(
                "precision='fp16' scales losses by what all gradients are, which strategy='fsdp' "
                "leaves in pieces on the processes; take 'bf16', or another strategy"
            )
        if isinstance(plan.optimizer, torch.optim.Optimizer):
            raise ValueError(
                "optimizer holds whole weights, and strategy='fsdp' trains pieces of them; give a "
                "function that makes it, such as lambda parameters: torch.optim.SGD(parameters, "
                "lr=0.1)"
            )
        if plan.micro_batch == 1:
            raise ValueError(
                "micro_batch must be at least 2 with strategy='fsdp', since all processes need as "
                "many parts, got 1"
            )

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let only the process that writes warn; report a process that was lost meanwhile."""
        with super().quiet(), reporting_lost_process():
            yield

    def parts(self, rows: int, batch: int, size: int) -> list[slice]:
        """Return the parts of this process's rows; all processes have the same number of parts.

        Each part gathers the weights once, for which all processes are needed.
        """
        most = batch if batch < 2 * self.processes.count else -(-batch // self.processes.count)
        return split_evenly(rows, -(-most // size))

    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses of all rows; the gradients are summed already."""
        for each in self.model.parameters():
            if each.requires_grad and each.grad is None:
                each.grad = torch.zeros_like(each)
        return super().reduce(losses, batch)

    def finish(self, history: History) -> None:
        """Copy the whole weights into the ensemble of each process, and the history to all."""
        super().finish(history)
        found = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        own = {**dict(self.whole.named_parameters()), **dict(self.whole.named_buffers())}
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(whole(found[name]))

    def _own_gradients(self) -> list[nn.Parameter]:
        return []
