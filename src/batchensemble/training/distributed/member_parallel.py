"""Member parallel: each process trains some of the members."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import Draw
from batchensemble.ensembles import DeepEnsemble, Ensemble
from batchensemble.ensembles.conversion.convert import twins
from batchensemble.training.distributed.processes import Processes, split_evenly
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.history import History


class MemberParallel(Strategy):
    """Each process trains some members on whole batches; all weights are collected at the end.

    Raises:
        ValueError: the members share weights, or there are fewer than processes.
    """

    separate_weights = True

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        super().__init__(model, processes)
        if not isinstance(model, DeepEnsemble) or not model.own_examples:
            raise ValueError(
                "strategy='members' is for ensembles whose members share no weights, DeepEnsemble "
                f"without branch_at=, got {type(model).__name__}; leave it out"
            )
        if model.members < processes.count:
            raise ValueError(
                f"strategy='members' gives each process at least one member, got {model.members} "
                f"members and {processes.count} processes; leave it out, or start fewer"
            )
        processes.broadcast([*model.parameters(), *model.buffers()])
        self.pieces = [
            range(model.members)[each] for each in split_evenly(model.members, processes.count)
        ]
        self.own = self.pieces[processes.rank]
        self.model = model.select(self.own)

    def draw(self, draw: Draw | None) -> Draw | None:
        """Return the function that draws the examples of this process's members."""
        if draw is None:
            return None
        return lambda order: draw(order)[..., self.own.start : self.own.stop, :]

    @torch.no_grad()
    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses of all members."""
        of_all = losses.new_zeros(batch, self.whole.members)
        of_all[:, self.own.start : self.own.stop] = losses
        return self._sum([of_all])[0].to(losses.dtype)

    def outputs(self, model: Ensemble, inputs: Inputs) -> Any:
        """Return the outputs of all members."""
        return self.processes.gather(model(inputs), [len(each) for each in self.pieces], axis=1)

    def finish(self, history: History) -> None:
        """Copy all weights into the whole ensemble of each process, and the history to all."""
        if self.model.one_by_one:
            self.whole.run_as("one_by_one")
        own, of_all = self.model.calls_per_forward, self.whole.calls_per_forward
        history.forward_calls = [each // own * of_all for each in history.forward_calls]
        history.continue_from(self.processes.from_first(lambda: history))
        joined = copy.deepcopy(self.whole)
        for rank, piece in enumerate(self.pieces):
            part = self.model if rank == self.processes.rank else self.whole.select(piece)
            self.processes.broadcast(part.state_dict().values(), rank)
            for index, network in zip(piece, map(part.member, range(len(piece))), strict=True):
                for name, twin in twins(joined.network):
                    twin.put(index, network.get_submodule(name))  # type: ignore[operator]
        self.whole.load_state_dict(joined.state_dict())
