"""Optimisers: Adam in one kernel, those of torch by name, or the user's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import LRScheduler

from batchensemble.core.dtensor import as_held, whole_on_first
from batchensemble.training.optim.buffers import Buffer, Group, by_buffer, in_buffers
from batchensemble.training.optim.schedules import Schedule

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]

OPTIMIZERS = ("adam", "adamw", "sgd")


class Updater(ABC):
    """An optimiser with its schedule, as the loop uses it.

    Attributes:
        schedule: the learning rate of each step; ``None`` for rates that are not ours.
        scale: factor on the learning rates, besides the schedule.
        elapsed: share of the time budget that is used up, 0 without one.
        cooling: steps from and to which the rate falls to 0 besides; ``None`` without.
        done: number of steps done.
    """

    schedule: Schedule | None = None
    scale = 1.0
    elapsed = 0.0
    cooling: tuple[int, int] | None = None
    done = 0

    def share(self, schedule: Schedule) -> float:
        """Return the share of the highest learning rate in the next step."""
        share = schedule.at(self.done, self.elapsed) * self.scale
        if self.cooling is not None:
            start, end = self.cooling
            share *= max(0.0, (end - self.done) / (end - start))
        return share

    @abstractmethod
    def clear(self) -> None:
        """Forget the gradients of the last step."""

    @abstractmethod
    def step(self) -> None:
        """Update the parameters from their gradients."""

    @property
    @abstractmethod
    def lr(self) -> float:
        """The learning rate of the next step, of the first group."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the state for the next step: tensors and numbers."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""


class FlatAdam(Updater):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) on the buffers of :func:`in_buffers`.

    It calls the function behind ``torch.optim.Adam``, with the same defaults: for a small network
    the class around it takes longer than the update itself.

    Args:
        buffers: the buffers of the parameters.
        schedule: the learning rate of each step.
        decoupled: weight decay as in AdamW (arXiv 1711.05101).
    """

    schedule: Schedule

    def __init__(
        self, buffers: list[Buffer], schedule: Schedule, *, decoupled: bool = False
    ) -> None:
        self.buffers, self.schedule = buffers, schedule
        self.update: Any = adamw if decoupled else adam
        values = [buffer.values for buffer in buffers]
        self.fused = all(value.device.type in ("cpu", "cuda") for value in values)
        self.means = [torch.zeros_like(value) for value in values]
        self.squares = [torch.zeros_like(value) for value in values]
        self.steps = [torch.zeros((), device=value.device) for value in values]
        self.parameters = [each for buffer in buffers for each in buffer.parameters]

    def clear(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients."""
        share = self.share(self.schedule)
        for index, buffer in enumerate(self.buffers):
            self.update(
                [buffer.values],
                [buffer.gradient()],
                [self.means[index]],
                [self.squares[index]],
                [],
                [self.steps[index]],
                fused=self.fused,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=buffer.lr * share,
                weight_decay=buffer.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        self.done += 1

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first group."""
        return self.buffers[0].lr * self.share(self.schedule)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments and the number of steps."""
        parts = zip(self.means, self.squares, self.steps, strict=True)
        moments = {
            f"{index}.{name}": value
            for index, part in enumerate(parts)
            for name, value in zip(("mean", "square", "step"), part, strict=True)
        }
        return {**moments, "done": self.done, "scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        for name, values in (("mean", self.means), ("square", self.squares), ("step", self.steps)):
            for index, value in enumerate(values):
                value.copy_(state[f"{index}.{name}"])
        self.done, self.scale = state["done"], state["scale"]


class TorchOptimiser(Updater):
    """An optimiser of torch, with our schedule, a scheduler of torch, or left to itself.

    Args:
        optimizer: an optimiser whose groups hold the highest learning rates.
        schedule: the learning rate of each step; ``None`` does not change the rates.
        scheduler: makes a scheduler of torch, which takes a step after each of the optimiser.
        scaler: scales losses in half precision; ``None`` otherwise.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule | None = None,
        scheduler: SchedulerFactory | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.optimizer, self.schedule, self.scaler = optimizer, schedule, scaler
        self.highest = [group["lr"] for group in optimizer.param_groups]
        self.scheduler = None if scheduler is None else scheduler(optimizer)

    def clear(self) -> None:
        """Forget the gradients of the last step."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Update the parameters from their gradients."""
        self._set_rates()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.scheduler is not None:
            self.scheduler.step()
        self.done += 1

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first group."""
        self._set_rates()
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Return the states of torch's objects, and the number of steps."""
        objects = {"scheduler": self.scheduler, "scaler": self.scaler}
        return {
            "optimizer": self.optimizer.state_dict(),
            **{name: each.state_dict() for name, each in objects.items() if each is not None},
            "done": self.done,
            "scale": self.scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        of_each = {
            index: {name: as_held(value, parameters[index]) for name, value in part.items()}
            for index, part in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict({**state["optimizer"], "state": of_each})
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.done, self.scale = state["done"], state["scale"]

    def _set_rates(self) -> None:
        if self.schedule is not None:
            share = self.share(self.schedule)
            for group, highest in zip(self.optimizer.param_groups, self.highest, strict=True):
                group["lr"] = highest * share


class ShardedAdam(TorchOptimiser):
    """Adam for sharded weights, with the checkpoints of :class:`FlatAdam`.

    Args:
        groups: the groups of parameters.
        schedule: the learning rate of each step.
        decoupled: weight decay as in AdamW.
    """

    # The names of the moments here and in torch.
    NAMES = (("mean", "exp_avg"), ("square", "exp_avg_sq"))

    def __init__(self, groups: list[Group], schedule: Schedule, *, decoupled: bool) -> None:
        super().__init__(_named("adamw" if decoupled else "adam", groups), schedule)
        self.buffers = list(by_buffer(groups).values())

    def state_dict(self) -> dict[str, Any]:
        """Return the whole moments, on the first process, and the number of steps."""
        moments: dict[str, Tensor] = {}
        for index, parameters in enumerate(self.buffers):
            states = [self.optimizer.state[each] for each in parameters]
            for name, torchs in self.NAMES:
                parts = [whole_on_first(state[torchs]).flatten() for state in states]
                moments[f"{index}.{name}"] = torch.cat(parts)
            moments[f"{index}.step"] = states[0]["step"]
        return {**moments, "done": self.done, "scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        for index, parameters in enumerate(self.buffers):
            sizes = [each.numel() for each in parameters]
            for each in parameters:
                step = state[f"{index}.step"].clone().to(each.device)
                self.optimizer.state[each] = {"step": step}
            for name, torchs in self.NAMES:
                parts = state[f"{index}.{name}"].split(sizes)
                for each, part in zip(parameters, parts, strict=True):
                    held = as_held(part.view(each.shape), each)
                    self.optimizer.state[each][torchs] = held
        self.done, self.scale = state["done"], state["scale"]


@contextmanager
def optimiser(
    optimizer: str | Optimizer | OptimizerFactory,
    groups: list[Group],
    schedule: Schedule,
    scheduler: SchedulerFactory | None = None,
    scaler: torch.amp.GradScaler | None = None,
    *,
    sharded: bool = False,
) -> Iterator[Updater]:
    """Yield the optimiser of a training.

    Args:
        optimizer: a name of :data:`OPTIMIZERS`, an optimiser of torch, or what makes one from the
            list of parameters. The learning rates of the last two are not changed.
        groups: the groups of parameters.
        schedule: the learning rate of each step.
        scheduler: makes a scheduler of torch in its place; ``None`` without.
        scaler: scales losses in half precision; ``None`` otherwise.
        sharded: whether the parameters are sharded over several processes.

    Raises:
        TypeError: ``optimizer`` is none of these.
        ValueError: there is nothing to train.
    """
    parameters = [each for group in groups for each in group["params"] if each.requires_grad]
    if not parameters:
        raise ValueError("the network has no parameters to train")
    if not isinstance(optimizer, str):
        yield TorchOptimiser(_made(optimizer, parameters), None, scheduler, scaler)
    elif optimizer == "sgd" or scheduler or scaler:
        yield TorchOptimiser(
            _named(optimizer, groups, sharded=sharded),
            None if scheduler else schedule,
            scheduler,
            scaler,
        )
    elif sharded:
        yield ShardedAdam(groups, schedule, decoupled=optimizer == "adamw")
    else:
        with in_buffers(groups) as buffers:
            yield FlatAdam(buffers, schedule, decoupled=optimizer == "adamw")


def _made(make: Any, parameters: list[nn.Parameter]) -> Optimizer:
    made = make if isinstance(make, Optimizer) or not callable(make) else make(parameters)
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"optimizer must be one of {', '.join(OPTIMIZERS)}, an optimiser of torch, or a "
            "function that makes one from the list of parameters, such as lambda parameters: "
            f"torch.optim.SGD(parameters, lr=0.1), got {type(made).__name__}"
        )
    known = {id(each) for each in parameters}
    if not any(id(each) in known for group in made.param_groups for each in group["params"]):
        raise ValueError(
            "optimizer holds none of the parameters of this network; make it from "
            "model.parameters() or model.parameter_groups(lr=...)"
        )
    return made


def _named(name: str, groups: list[Group], *, sharded: bool = False) -> Optimizer:
    fused = all(each.device.type in ("cpu", "cuda") for g in groups for each in g["params"])
    if name == "sgd":  # whose kernel does not take pieces
        return torch.optim.SGD(groups, momentum=0.9, fused=fused and not sharded)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, fused=fused)
