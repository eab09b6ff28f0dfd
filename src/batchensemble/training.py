"""``fit``: the training loop of every ensemble."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from batchensemble.admission import (
    check_batch,
    check_classes,
    check_ensemble,
    check_held_out,
    place_of,
    warn_if_members_differ,
)
from batchensemble.batches import Arrange, Batches, make_batches
from batchensemble.checks import fraction, positive_number, whole_number
from batchensemble.ensembles import Ensemble
from batchensemble.losses import Loss, LossOn, ensemble_nll, make_loss
from batchensemble.modes import modes_kept
from batchensemble.optimisation import Cooldown, FlatAdam, one_buffer
from batchensemble.progress import TrainingBar

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]

PREDICTION_BATCH = 4096


@dataclass
class History:
    """What a training did, one entry an epoch.

    Attributes:
        losses: mean over examples and members, nats for the cross-entropy.
        member_losses: each member's mean over the examples; one column with
            ``loss_on="mean_logits"``.
        last_batch_losses: the loss of the last batch alone, as the notebook prints it.
        validation_nll: held-out negative log-likelihood of the ensemble, nats; empty without
            validation data.
        seconds: duration of the training, validation not counted.
        examples: examples gone through.
        forward_calls: how often a network was called.
    """

    losses: list[float] = field(default_factory=list)
    member_losses: list[list[float]] = field(default_factory=list)
    last_batch_losses: list[float] = field(default_factory=list)
    validation_nll: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    forward_calls: list[int] = field(default_factory=list)

    @property
    def total_seconds(self) -> float:
        """Seconds of all epochs."""
        return sum(self.seconds)

    @property
    def total_forward_calls(self) -> int:
        """Calls of a network in all epochs."""
        return sum(self.forward_calls)

    @property
    def examples_per_second(self) -> float:
        """Examples gone through in a second of training."""
        return sum(self.examples) / self.total_seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the history as JSON can hold it."""
        return asdict(self)

    def record(self, losses: list[Tensor], seconds: float, calls: int) -> None:
        """Add an epoch from the losses of its batches, ``[batch, members]`` each."""
        by_member = torch.cat(losses).mean(0)
        self.losses.append(by_member.mean().item())
        self.member_losses.append(by_member.tolist())
        self.last_batch_losses.append(losses[-1].mean().item())
        self.seconds.append(seconds)
        self.examples.append(sum(len(batch) for batch in losses))
        self.forward_calls.append(calls)


def fit(
    model: Ensemble,
    data: Any,
    *,
    validation: Any = None,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-3,
    loss: str | Loss = "cross_entropy",
    loss_on: LossOn = "members",
    cooldown: float = 0.1,
    optimizer: OptimizerFactory | None = None,
    shuffle: bool = True,
    seed: int | None = 0,
    progress: bool | None = None,
    label: str = "training",
) -> History:
    """Train an ensemble in place.

    The loss is averaged over the examples of a batch and summed over the members, so each member
    gets the gradient that it would get alone.

    Args:
        model: any ensemble.
        data: a pair ``(X, y)`` of arrays or tensors, with targets ``[examples]`` or
            ``[examples, members]``; or a ``Dataset`` or ``DataLoader`` of such pairs.
        validation: held-out data in the same forms, scored after each epoch.
        epochs: times the data are gone through.
        batch_size: examples a step; a ``DataLoader`` has its own.
        lr: learning rate of Adam.
        loss: ``"cross_entropy"``, or a function from ``[batch, members, ...]`` and targets to
            ``[batch, members]``.
        loss_on: ``"members"``, or ``"mean_logits"`` as in the notebook, whose members are then
            free to be wrong one by one; all members then see the same examples.
        cooldown: share of the steps, at the end, in which the learning rate falls to 0 in a
            straight line; without it the last steps' noise stays in the weights.
        optimizer: makes another optimiser from the list of parameters; ``lr`` and ``cooldown`` are
            then its own affair.
        shuffle: a new order each epoch.
        seed: of the order and of dropout; the caller's random state stays as it is. ``None`` draws
            from the caller's.
        progress: show a bar; by default only in a terminal.
        label: what the bar calls this training.

    Returns:
        The history, one entry an epoch.

    Raises:
        TypeError: an argument or the data are of the wrong type.
        ValueError: an argument is out of range, or the data do not fit the network. Nothing has
            been trained then.
        FloatingPointError: the loss is no longer finite.

    Example:
        >>> X, y = torch.randn(64, 2), torch.randint(2, (64,))
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(nn.Linear(2, 2), members=3)
        >>> len(fit(model, (X, y), epochs=2).losses)
        2
    """
    check_ensemble(model)
    epochs, lr = whole_number("epochs", epochs), positive_number("lr", lr)
    batch_size = whole_number("batch_size", batch_size)
    objective = _objective(model, loss, loss_on)
    place = place_of(model)
    draw = model.draw if objective.own_examples else None
    cooldown = fraction("cooldown", cooldown)
    history = History()
    with _random_state(seed, place["device"]), modes_kept(model):
        batches = make_batches(
            data, batch_size, shuffle=shuffle, draw=draw, arrange=objective.arrange, **place
        )
        held_out = None
        if validation is not None:
            held_out = make_batches(validation, PREDICTION_BATCH, **place)
            check_held_out(model, held_out)
        if loss == "cross_entropy":
            check_classes(model, batches)
            check_classes(model, held_out)
        steps = epochs * len(batches)
        bar = TrainingBar(label, steps, show=progress)
        schedule = Cooldown(lr, steps, cooldown)
        with bar, _optimiser(model, optimizer, schedule) as (parameters, step):
            for epoch in range(epochs):
                _epoch(model, batches, objective, parameters, step, history, bar)
                check_finite(history, lr)
                if held_out is not None:
                    history.validation_nll.append(held_out_nll(model, held_out))
                bar.quality(_quality(history, epoch + 1, epochs))
    return history


def _epoch(
    model: Ensemble,
    batches: Batches,
    objective: Objective,
    parameters: list[nn.Parameter],
    step: Callable[[], Any],
    history: History,
    bar: TrainingBar,
) -> None:
    """Go through the data once."""
    model.train()
    start = time.perf_counter()
    all_losses: list[Tensor] = []
    for inputs, targets in bar.track(batches):
        if not history.losses and not all_losses:
            check_batch(model, objective, inputs, targets)
            warn_if_members_differ(model, inputs)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()
        losses = objective.losses(inputs, targets)
        losses.backward(torch.full_like(losses, 1 / len(inputs)))
        step()
        all_losses.append(losses.detach())
    seconds = time.perf_counter() - start
    if not all_losses:
        raise ValueError("data must hold at least one batch, but the data loader yields none")
    by_member = [objective.by_member(losses) for losses in all_losses]
    history.record(by_member, seconds, len(by_member) * model.calls_per_forward)


@dataclass(frozen=True)
class Objective:
    """What a training step minimises, and how to read it.

    Attributes:
        losses: maps inputs and targets to one number for each example and member.
        by_member: brings these numbers into the shape ``[batch, members]``.
        arrange: puts targets into the order that ``losses`` wants, outside the inner loop.
        own_examples: whether inputs are ``[batch, members, ...]``, other examples for each member.
    """

    losses: Callable[[Tensor, Tensor], Tensor]
    by_member: Callable[[Tensor], Tensor]
    arrange: Arrange | None = None
    own_examples: bool = False


def _objective(model: Ensemble, loss: str | Loss, loss_on: LossOn) -> Objective:
    """Return the objective: for the usual loss straight from the rows, without views between."""
    function = make_loss(loss, loss_on)
    own = model.own_examples and loss_on == "members"
    if loss == "cross_entropy" and loss_on == "members":

        def of_rows(inputs: Tensor, targets: Tensor) -> Tensor:
            rows = model.rows(inputs, per_member=own)
            return F.cross_entropy(rows, targets, reduction="none")

        return Objective(of_rows, model.by_member, model.target_rows, own)

    def of_members(inputs: Tensor, targets: Tensor) -> Tensor:
        return function(model(inputs, per_member=own), targets)

    return Objective(of_members, lambda losses: losses, None, own)


def held_out_nll(model: Ensemble, batches: Batches) -> float:
    """Return the mean negative log-likelihood of the ensemble's mean probability, nats."""
    model.eval()
    # A data loader draws a seed of its own, which must not change the training.
    with torch.no_grad(), torch.random.fork_rng([]):
        return torch.cat([ensemble_nll(model(x), y) for x, y in batches]).mean().item()


def check_finite(history: History, lr: float) -> None:
    """Raise ``FloatingPointError`` if the loss of the last epoch is NaN or infinite."""
    if not math.isfinite(history.losses[-1]):
        raise FloatingPointError(
            f"training diverged: the loss was {history.losses[-1]} in epoch {len(history.losses)}; "
            f"try a learning rate below {lr:g}"
        )


@contextmanager
def _optimiser(
    model: Ensemble, make: OptimizerFactory | None, schedule: Cooldown
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


@contextmanager
def _random_state(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch for a while and restore the caller's state; with ``None`` use the caller's."""
    if seed is None:
        yield
        return
    if whole_number("seed", seed, at_least=0) >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _quality(history: History, epoch: int, epochs: int) -> str:
    text = f"epoch {epoch}/{epochs}, loss {history.losses[-1]:.4f}"
    if history.validation_nll:
        text += f", held-out NLL {history.validation_nll[-1]:.4f}"
    return text
