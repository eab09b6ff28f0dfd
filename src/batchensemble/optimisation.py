"""An Adam step that costs one kernel, whatever the number of parameters, and its step size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]


@contextmanager
def one_buffer(module: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Lay all trainable parameters of ``module`` into one buffer, gradients too, for a while.

    Yields one parameter for each pair of dtype and device. Elementwise optimisers do the same to
    it as to the parameters one by one, in one kernel instead of one a parameter. On leaving, also
    by an error, each parameter owns its memory again and has no gradient.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = defaultdict(list)
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups[parameter.dtype, parameter.device].append(parameter)
    try:
        yield [_flatten(parameters) for parameters in groups.values()]
    finally:
        for parameters in groups.values():
            for parameter in parameters:
                parameter.data = parameter.data.clone()
                parameter.grad = None


def _flatten(parameters: list[nn.Parameter]) -> nn.Parameter:
    buffer = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    buffer.grad = torch.zeros_like(buffer)
    sizes = [parameter.numel() for parameter in parameters]
    values: list[Tensor] = list(buffer.detach().split(sizes))
    gradients: list[Tensor] = list(buffer.grad.split(sizes))
    for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
        parameter.data = value.view_as(parameter)
        parameter.grad = gradient.view_as(parameter)
    return buffer


@dataclass(frozen=True)
class Cooldown:
    """A constant learning rate that falls to 0 in a straight line at the end.

    Example:
        >>> schedule = Cooldown(1.0, steps=10, share=0.4)
        >>> [schedule.at(step) for step in (0, 6, 7, 9)]
        [1.0, 1.0, 0.75, 0.25]
    """

    lr: float
    steps: int
    share: float

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        length = self.share * self.steps
        left = self.steps - step
        return self.lr if left >= length else self.lr * left / length


class FlatAdam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) on the buffers of :func:`one_buffer`.

    It calls the function behind ``torch.optim.Adam``, with the same defaults: for a small network
    the class around it takes longer than the update itself.

    Args:
        buffers: parameters with gradients.
        schedule: the learning rate of each step.
    """

    def __init__(self, buffers: list[nn.Parameter], schedule: Cooldown) -> None:
        self.buffers, self.schedule = buffers, schedule
        self.done = 0
        self.fused = all(buffer.device.type in ("cpu", "cuda") for buffer in buffers)
        self.gradients = [_gradient(buffer) for buffer in buffers]
        self.means = [torch.zeros_like(buffer) for buffer in buffers]
        self.squares = [torch.zeros_like(buffer) for buffer in buffers]
        self.steps = [torch.zeros((), device=buffer.device) for buffer in buffers]

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients."""
        adam(
            self.buffers,  # type: ignore[arg-type]
            self.gradients,
            self.means,
            self.squares,
            [],
            self.steps,
            fused=self.fused,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.schedule.at(self.done),
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        self.done += 1


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@contextmanager
def optimiser(
    model: nn.Module, make: OptimizerFactory | None, schedule: Cooldown
) -> Iterator[tuple[list[nn.Parameter], Callable[[], Any]]]:
    """Yield the parameters whose gradients the loop clears, and what makes a step.

    The default is Adam over one buffer; an optimiser of the user's gets the parameters as
    they are, since it may treat each one in its own way.
    """
    if make is not None:
        if not callable(make):
            raise TypeError(
                "optimizer must be a function that makes one from the list of parameters, such as "
                f"lambda parameters: torch.optim.SGD(parameters, lr=0.1), got {type(make).__name__}"
            )
        parameters = list(model.parameters())
        yield parameters, make(parameters).step
        return
    with one_buffer(model) as buffers:
        if not buffers:
            raise ValueError("the network has no parameters to train")
        yield buffers, FlatAdam(buffers, schedule).step
