"""Data parallel: each process takes some rows of each batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.inputs import Inputs
from batchensemble.ensembles import Ensemble
from batchensemble.training.distributed.processes import Processes, cut
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.history import History


class DataParallel(Strategy):
    """Data parallel: each process takes some rows of each batch, and all make the same step.

    The gradients of all, the losses of all, and the running statistics of norms go round in one
    sum a step. DistributedDataParallel would overlap its sums with the backward pass, but knows
    nothing of clipping member by member, of batches in parts, and of losses.
    """

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        super().__init__(model, processes)
        processes.same([*model.parameters(), *model.buffers()])

    def rows(self, batch: int) -> tuple[slice, float]:
        """Return which rows of a batch this process takes, and how much they count.

        Less than two rows each (batch norm needs two) are taken by all, and the first one's count.
        """
        if batch < 2 * self.processes.count:
            return slice(0, batch), float(self.processes.rank == 0)
        return cut(batch, self.processes.count)[self.processes.rank], 1.0

    @torch.no_grad()
    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses of all rows, and make the gradients those of all."""
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
        """Return the parameters of whose gradients each process has its own rows' part."""
        return [each for each in self.model.parameters() if each.requires_grad]

    def outputs(self, model: Ensemble, inputs: Inputs) -> Any:
        """Return the outputs for inputs that all processes have; each computes some rows."""
        pieces = cut(len(inputs), self.processes.count)
        own = pieces[self.processes.rank]
        sizes = [each.stop - each.start for each in pieces]
        # Where there are fewer rows than processes, one that nobody needs says what comes out.
        some = model(inputs[own] if own.stop > own.start else inputs[:1])
        return self.processes.gather(some[: own.stop - own.start], sizes)

    def finish(self, history: History) -> None:
        """Bring the first one's history to all; the weights are the same."""
        history.continue_from(self.processes.from_first(lambda: history))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
