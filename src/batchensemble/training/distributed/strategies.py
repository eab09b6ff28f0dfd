"""How one training is shared out among processes: its examples, its weights, or its members."""

from __future__ import annotations

import copy
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from batchensemble.core.arguments import one_of
from batchensemble.core.dtensor import whole
from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import Batches, Draw
from batchensemble.ensembles import DeepEnsemble, Ensemble
from batchensemble.ensembles.conversion.convert import twins
from batchensemble.losses import LossOn
from batchensemble.training.distributed.fsdp import in_pieces
from batchensemble.training.distributed.processes import (
    Processes,
    cut,
    in_steps,
    overheard,
    started,
)
from batchensemble.training.plan import TrainingPlan

if TYPE_CHECKING:
    from batchensemble.training.history import History

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# On an accelerator reading what was agreed on waits for the step, so that is done now and then.
LISTEN_EVERY = 16
# Options of fit that do not go with weights in pieces, and why.
NEEDS_WHOLE = {
    "clip": "goes by the norm of each member's whole gradient",
    "average": "keeps a copy of the whole weights",
    "compile": "traces the whole weights",
}


class Strategy:
    """A training in one process alone; subclasses share it out among several.

    Args:
        model: the whole ensemble.
        processes: that train it.

    Attributes:
        model: what this process trains.
        each_its_own: whether the processes train different weights.
        in_pieces: whether each process holds a piece of every weight.
    """

    each_its_own = False
    in_pieces = False

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        self.whole = self.model = model
        self.processes = processes
        self.noted = self.agreed = 0
        self.calls = 0

    @classmethod
    def place(cls, device: torch.device) -> torch.device:
        """Return where the processes compute, for an ensemble on ``device``."""
        return device

    @property
    def shared(self) -> bool:
        """Whether there is more than one process."""
        return self.processes.count > 1

    def note(self, number: int) -> None:
        """Take note of a signal, which all act on after the same step."""
        self.noted = number
        if not self.shared:
            self.agreed = number

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let only the first process warn."""
        with ExitStack() as stack:
            if not self.processes.first:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            yield

    def begin(self, batches: Batches, seed: int | None) -> None:
        """Get ready for the first step, each process with dropout of its own.

        Raises:
            ValueError: the processes have different data.
        """
        if not self.shared:
            return
        found = self.processes.all(batches.describe())
        for rank, other in enumerate(found):
            if other != found[0]:
                raise ValueError(
                    "all processes must have the same data, and each takes its share of it; "
                    f"process 0 has {found[0]}, process {rank} has {other}"
                )
        self.own_randomness(seed)

    @contextmanager
    def joining(self, history: History) -> Iterator[None]:
        """Bring weights and history together when a training is over or has diverged."""
        try:
            yield
        except FloatingPointError:
            self.finish(history)
            raise
        self.finish(history)

    def seed(self, seed: int | None) -> int | None:
        """Return the seed of the data, which all must have in common."""
        if seed is not None or not self.shared:
            return seed
        return self.processes.from_first(lambda: int(torch.randint(2**62, ()).item()))

    def own_randomness(self, seed: int | None, step: int = 0) -> None:
        """Give each process dropout of its own; the first one's is that of a process alone."""
        if seed is not None and not self.processes.first:
            torch.manual_seed((seed + 0xD1B54A32D192ED03 * self.processes.rank + step) % 2**63)

    def check(self, plan: TrainingPlan) -> None:
        """Raise ``ValueError`` for an option that does not go with the strategy."""

    def draw(self, draw: Draw | None) -> Draw | None:
        """Return what draws the examples of this process's members."""
        return draw

    def rows(self, batch: int) -> tuple[slice, float]:
        """Return which rows of a batch this process takes, and how much they count."""
        return slice(0, batch), 1.0

    def parts(self, rows: int, batch: int, size: int) -> list[slice]:
        """Return the parts, of ``size`` rows at most, in which this process's rows are run."""
        return in_steps(rows, size)

    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses ``[batch, members]`` of all, and make the gradients those of all."""
        return losses

    def outputs(self, model: Ensemble, inputs: Inputs) -> Any:
        """Return the outputs of all members for inputs that all processes have."""
        return model(inputs)

    def finish(self, history: History) -> None:
        """Bring the weights into the whole ensemble, and the first one's history to all."""

    def _sum(self, parts: list[Tensor]) -> list[Tensor]:
        """Return the sums of all processes' tensors, in one collective; listen for signals."""
        heard = parts[0].new_tensor([self.noted == each for each in SIGNALS])
        parts = [*parts, heard]
        kind = parts[0].dtype
        for each in parts:
            kind = torch.promote_types(kind, each.dtype)
        flat = torch.cat([each.reshape(-1).to(kind) for each in parts])
        pieces = self.processes.sum(flat).split([each.numel() for each in parts])
        if flat.device.type == "cpu" or self.calls % LISTEN_EVERY == 0:
            for number, times in zip(SIGNALS, pieces[-1].tolist(), strict=True):
                self.agreed = number if times else self.agreed
        self.calls += 1
        return [each.view(part.shape) for each, part in zip(pieces, parts, strict=True)][:-1]


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
            return slice(0, batch), float(self.processes.first)
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


class FullySharded(DataParallel):
    """Fully sharded data parallel (Zhao et al. 2023, arXiv 2304.11277): the weights in pieces.

    As above each process takes some rows of each batch; besides it holds a piece of every weight,
    of its gradient and of what the optimiser keeps of it. A copy is trained, so that the ensemble
    has its own weights, whole, before and after.

    Raises:
        ImportError: torch is too old.
        ValueError: the weights cannot be cut into pieces.
    """

    in_pieces = True

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        super().__init__(model, processes)
        self.model = in_pieces(model, processes.device)

    @classmethod
    def place(cls, device: torch.device) -> torch.device:
        """Return where the processes compute: not where a large network was made."""
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
        """Let only the first process warn; tell of a process that was lost while a module ran."""
        with super().quiet(), overheard():
            yield

    def parts(self, rows: int, batch: int, size: int) -> list[slice]:
        """Return the parts of this process's rows: as many as the others have, or they would wait.

        Each part brings the weights together once more.
        """
        most = batch if batch < 2 * self.processes.count else -(-batch // self.processes.count)
        return cut(rows, -(-most // size))

    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses of all rows; the gradients are those of all already."""
        for each in self.model.parameters():
            if each.requires_grad and each.grad is None:
                each.grad = torch.zeros_like(each)
        return super().reduce(losses, batch)

    def finish(self, history: History) -> None:
        """Bring the whole weights into the ensemble of each process, and the history to all."""
        super().finish(history)
        found = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        own = {**dict(self.whole.named_parameters()), **dict(self.whole.named_buffers())}
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(whole(found[name]))

    def _own_gradients(self) -> list[nn.Parameter]:
        return []


class MemberParallel(Strategy):
    """Each process trains some of the members, on whole batches; their weights meet at the end.

    Raises:
        ValueError: the members share weights, or there are fewer than processes.
    """

    each_its_own = True

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
        processes.same([*model.parameters(), *model.buffers()])
        self.pieces = [range(model.members)[each] for each in cut(model.members, processes.count)]
        self.own = self.pieces[processes.rank]
        self.model = model.select(self.own)

    def draw(self, draw: Draw | None) -> Draw | None:
        """Return what draws the examples of this process's members, as of all."""
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
        """Bring all weights into the whole ensemble of each process, and the history to all."""
        if self.model.one_by_one:
            self.whole.run_as("one_by_one")
        own, of_all = self.model.calls_per_forward, self.whole.calls_per_forward
        history.forward_calls = [each // own * of_all for each in history.forward_calls]
        history.continue_from(self.processes.from_first(lambda: history))
        joined = copy.deepcopy(self.whole)
        for rank, piece in enumerate(self.pieces):
            part = self.model if rank == self.processes.rank else self.whole.select(piece)
            self.processes.same(part.state_dict().values(), rank)
            for index, network in zip(piece, map(part.member, range(len(piece))), strict=True):
                for name, twin in twins(joined.network):
                    twin.put(index, network.get_submodule(name))  # type: ignore[operator]
        self.whole.load_state_dict(joined.state_dict())


def choose_strategy(
    model: Ensemble, strategy: str, device: torch.device, loss_on: LossOn = "members"
) -> Strategy:
    """Return how a training is shared out among the processes that a launcher started.

    Args:
        model: the whole ensemble, as it is in each process.
        strategy: a name of :data:`STRATEGIES`.
        device: of the ensemble.
        loss_on: what the loss is of, see :func:`batchensemble.fit`.

    Raises:
        ImportError: there are several processes, and accelerate is not installed.
        ValueError: an unknown name, or members that cannot be trained apart.
    """
    kind = STRATEGIES[one_of("strategy", strategy, STRATEGIES)]
    processes = started(kind.place(device))
    if processes.count == 1:
        return Strategy(model, processes)
    if kind.each_its_own and loss_on == "mean_logits":
        raise ValueError(
            "loss_on='mean_logits' is the loss of all members together, got strategy='members'; "
            "leave one of them out"
        )
    return kind(model if kind.in_pieces else model.to(processes.device), processes)


STRATEGIES: dict[str, type[Strategy]] = {
    "ddp": DataParallel,
    "fsdp": FullySharded,
    "members": MemberParallel,
}


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
