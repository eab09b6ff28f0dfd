"""``fit``: the training loop of every ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.admission import (
    check_batch,
    check_classes,
    check_ensemble,
    check_held_out,
    place_of,
    warn_if_members_differ,
)
from batchensemble.batches import Batches, make_batches
from batchensemble.checkpointing import checkpointed
from batchensemble.checks import fraction, positive_number, whole_number
from batchensemble.compilation import CompiledLosses
from batchensemble.ensembles import Ensemble
from batchensemble.history import History, check_finite
from batchensemble.losses import Loss, LossOn, ensemble_nll
from batchensemble.modes import modes_kept
from batchensemble.objective import Objective, make_objective
from batchensemble.optimisation import Cooldown, OptimizerFactory, optimiser
from batchensemble.progress import TrainingBar
from batchensemble.rules import Selectors
from batchensemble.sampling import Sampling, make_draw

PREDICTION_BATCH = 4096


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
    batches: Sampling | None = None,
    micro_batch: int | None = None,
    gradient_checkpointing: bool | Selectors = False,
    compile: bool | str = False,
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
        batches: what the members see of a batch. ``"shared"``: all of them all of it, at the
            arithmetic of M networks. ``"independent"``: each its own order of the examples, as if
            trained alone, at the same arithmetic (with a data loader the orders differ within a
            batch only). ``"split"``: each its share, at the arithmetic of one network, as in the
            paper; a member then needs M times the epochs to see as many examples. By default the
            method's own: shared, but for a deep ensemble independent.
        micro_batch: examples that go through the network at a time, for an ensemble that does not
            fit in memory otherwise; the gradients of a batch add up, so that only batch norm and
            dropout tell the difference.
        gradient_checkpointing: modules, by name, pattern, class or function, whose insides are
            computed again in the backward instead of kept: less memory, about a third more time.
            ``True``: each block directly beneath the network.
        compile: train through ``torch.compile``, in the mode of this name or its default one;
            ``history.compilation`` tells what it gained. Compiling takes seconds to minutes.
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
    if micro_batch is not None:
        micro_batch = whole_number("micro_batch", micro_batch)
    cooldown = fraction("cooldown", cooldown)
    draw = make_draw(model, batches, loss_on)
    objective = make_objective(model, loss, loss_on, own=draw is not None, micro_batch=micro_batch)
    if batches == "split" and draw is not None:
        objective = replace(objective, examples_a_row=model.members)
    place = place_of(model)
    history = History()
    with (
        _random_state(seed, place["device"]),
        modes_kept(model),
        checkpointed(model.network, gradient_checkpointing),
    ):
        training = make_batches(
            data, batch_size, shuffle=shuffle, draw=draw, arrange=objective.arrange, **place
        )
        held_out = None
        if validation is not None:
            held_out = make_batches(validation, PREDICTION_BATCH, **place)
            check_held_out(model, held_out)
        if loss == "cross_entropy":
            check_classes(model, training)
            check_classes(model, held_out)
        steps = epochs * len(training)
        schedule = Cooldown(lr, steps, cooldown)
        compiled = CompiledLosses(objective.losses, compile, place["device"]) if compile else None
        if compiled is not None:
            objective = replace(objective, losses=compiled)
        with (
            TrainingBar(label, steps, show=progress) as bar,
            optimiser(model, optimizer, schedule) as (parameters, step),
        ):
            if compiled is not None:
                step = compiled.timed(step)
            for epoch in range(epochs):
                _epoch(model, training, objective, parameters, step, history, bar)
                check_finite(history, lr)
                if compiled is not None and history.compilation is None:
                    history.compilation = compiled.result
                    if history.compilation is not None:
                        bar.say(str(history.compilation))
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
            warn_if_members_differ(model, inputs[:, 0] if objective.own_examples else inputs)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()
        all_losses.append(objective.backward(inputs, targets))
        step()
    seconds = time.perf_counter() - start
    if not all_losses:
        raise ValueError("data must hold at least one batch, but the data loader yields none")
    by_member = [objective.by_member(losses) for losses in all_losses]
    calls = sum(objective.parts(len(losses)) for losses in by_member) * model.calls_per_forward
    history.record(by_member, seconds, calls, objective.examples_a_row)


def held_out_nll(model: Ensemble, batches: Batches) -> float:
    """Return the mean negative log-likelihood of the ensemble's mean probability, nats."""
    model.eval()
    # A data loader draws a seed of its own, which must not change the training.
    with torch.no_grad(), torch.random.fork_rng([]):
        return torch.cat([ensemble_nll(model(x), y) for x, y in batches]).mean().item()


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
