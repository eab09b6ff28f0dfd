"""Data parallel: each process takes some rows of each batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.inputs import Inputs
from batchensemble.ensembles import Ensemble
from batchensemble.training.distributed.processes import Processes, split_evenly
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.history import History


class DataParallel(Strategy):
    """Data parallel: each process takes some rows of each batch, and all take the same step.

    Gradients, losses and the running statistics of normalisation layers are summed in one
    collective a step. DistributedDataParallel would overlap its sums with the backward pass, but
    does not support clipping by member, micro-batches, and sums of losses.
    """

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        super().__init__(model, processes)
        processes.broadcast([*model.parameters(), *model.buffers()])

    def rows(self, batch: int) -> tuple[slice, float]:
        """Return the rows of a batch that this process takes, and their weight.

        Batch norm needs two rows. If there are fewer for each process, all processes take the whole
        batch, and only the first one's rows count.
        """
        if batch < 2 * self.processes.count:
            return slice(0, batch), float(self.processes.rank == 0)
        return split_evenly(batch, self.processes.count)[self.processes.rank], 1.0

    @torch.no_grad()
    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses of all rows, and sum the gradients of all processes."""
        rows, counts = self.rows(batch)
        of_all = losses.new_zeros(batch, *losses.shape[1:])
        of_all[rows] = losses * counts
        parameters = self._own_gradients()
        gradients = [_gradient(each) for each in parameters]
        statistics = [each for each in self.model.buffers() if each.is_floating_point()]
        weighed = [each * (counts * len(losses) / batch) for each in statistics]
        of_all, *found = self._sum([of_all, *gradients, *weighed])
        for parameter, gradient in zip(parameters, found[: len(parameters)], strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        for each, mean in zip(statistics, found[len(parameters) :], strict=True):
            each.copy_(mean)
        return of_all.to(losses.dtype)

    def _own_gradients(self) -> list[nn.Parameter]:
        """Return the parameters whose gradients are still to be summed over the processes."""
        return [each for each in self.model.parameters() if each.requires_grad]

    def outputs(self, model: Ensemble, inputs: Inputs) -> Any:
        """Return the outputs for the same inputs in all processes; each computes some rows."""
        pieces = split_evenly(len(inputs), self.processes.count)
        own = pieces[self.processes.rank]
        sizes = [each.stop - each.start for each in pieces]
        # A process without rows runs one all the same, for the shape and type of the outputs.
        some = model(inputs[own] if own.stop > own.start else inputs[:1])
        return self.processes.gather(some[: own.stop - own.start], sizes)

    def finish(self, history: History) -> None:
        """Copy the first process's history to all; the weights are the same."""
        history.continue_from(self.processes.from_first(lambda: history))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
