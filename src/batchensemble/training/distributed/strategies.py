"""The strategies by name."""

from __future__ import annotations

import torch

from batchensemble.core.arguments import one_of
from batchensemble.ensembles import Ensemble
from batchensemble.losses import LossOn
from batchensemble.training.distributed.data_parallel import DataParallel
from batchensemble.training.distributed.fully_sharded import FullySharded
from batchensemble.training.distributed.member_parallel import MemberParallel
from batchensemble.training.distributed.processes import connect
from batchensemble.training.distributed.strategy import Strategy

STRATEGIES: dict[str, type[Strategy]] = {
    "ddp": DataParallel,
    "fsdp": FullySharded,
    "members": MemberParallel,
}


def choose_strategy(
    model: Ensemble, strategy: str, device: torch.device, loss_on: LossOn = "members"
) -> Strategy:
    """Return how the processes that a launcher started share a training.

    Args:
        model: the whole ensemble, as it is in each process.
        strategy: a name of :data:`STRATEGIES`.
        device: the device of the ensemble.
        loss_on: ``"members"`` or ``"mean_logits"``, see :func:`batchensemble.fit`.

    Raises:
        ImportError: there are several processes, and accelerate is not installed.
        ValueError: an unknown name, or members that cannot be trained separately.
    """
    kind = STRATEGIES[one_of("strategy", strategy, STRATEGIES)]
    processes = connect(kind.place(device))
    if processes.count == 1:
        return Strategy(model, processes)
    if kind.separate_weights and loss_on == "mean_logits":
        raise ValueError(
            "loss_on='mean_logits' is the loss of all members together, got strategy='members'; "
            "leave one of them out"
        )
    return kind(model if kind.sharded else model.to(processes.device), processes)
