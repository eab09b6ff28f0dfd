"""Evaluation on held-out data during a training: scores, the best weights, early stopping."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.dtensor import as_held
from batchensemble.data.batches import Batches
from batchensemble.ensembles import Ensemble
from batchensemble.layers.modes import evaluating
from batchensemble.losses import ClassLoss, Custom, EnsembleLoss
from batchensemble.losses.standardised import OF_STANDARDISED, LossUnit, unit_of
from batchensemble.losses.targets import Targets, Weighted, exact, parted
from batchensemble.metrics.by_name import HIGHER_IS_BETTER, score_by_name
from batchensemble.predictions.from_outputs import Arrays, reading
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.optim.schedules import Plateau

EXAMPLES = 512  # of the first batch, whose outputs are kept for diagnostics


class Evaluated(NamedTuple):
    """The first examples of an evaluation.

    Attributes:
        outputs: the members' outputs, ``[batch, members, classes]``; ``None`` for others.
        targets: their targets, with weights if there are some.
    """

    outputs: Tensor | None
    targets: Targets


class EarlyStopping(Callback):
    """Evaluates the ensemble on held-out data after each epoch, or every ``every`` steps.

    Args:
        batches: held-out inputs and targets.
        every: number of steps between two evaluations; ``None`` evaluates after each epoch.
        stop_on: the score that decides which weights are best, one of
            :func:`~batchensemble.metrics.by_name.names_of_scores`.
        patience: stop after this number of evaluations without a better score; ``None`` trains to
            the end.
        keep_best: whether to restore the weights with the best score at the end; by default only if
            there is a patience.
        cooldown: when the patience has run out, let the learning rate fall to 0 from the best
            weights, over this share of the steps done so far, before the training ends; 0 does not.
        plateau: lowers the learning rate when the score does not improve; ``None`` does not.
        loss: the loss, whose ``of_ensemble`` gives the score named ``"nll"``.
        strategy: how processes share the computation; ``None`` for a single process.
    """

    every_process = True
    key, earlier_keys = "held-out scores", ("Evaluating",)

    def __init__(
        self,
        batches: Batches,
        *,
        every: int | None = None,
        stop_on: str = "nll",
        patience: int | None = None,
        keep_best: bool = False,
        cooldown: float = 0.0,
        plateau: Plateau | None = None,
        loss: EnsembleLoss,
        strategy: Strategy | None = None,
    ) -> None:
        self.strategy = strategy
        self.batches, self.loss, self.plateau = batches, loss, plateau
        self.unit = unit_of(loss) or LossUnit()
        self.every, self.stop_on, self.patience = every, stop_on, patience
        self.cooldown = cooldown
        self.cooling: tuple[int, int] | None = None  # first and last step
        self.keep_best = keep_best or patience is not None
        self.optional_state = not self.keep_best and plateau is None  # nothing depends on it
        self.best: float | None = None
        self.best_step = self.waiting = self.since_fall = 0
        self.best_weights: dict[str, Tensor] | None = None
        self.first: Evaluated | None = None  # of the last evaluation

    def on_start(self, run: TrainingState) -> None:
        """Go on with a cooldown that a checkpoint interrupted."""
        run.updater.cooling = self.cooling

    def on_step(self, run: TrainingState) -> None:
        """Evaluate every ``every`` steps, and at the end of a cooldown."""
        cooled = self.cooling is not None and run.step >= self.cooling[1]
        if cooled or (self.every is not None and run.step % self.every == 0):
            self.evaluate(run)

    def on_epoch(self, run: TrainingState) -> None:
        """Evaluate, unless that was done after the last step."""
        done = run.history.evaluations
        if not done or done[-1]["step"] != run.step:
            self.evaluate(run)
        run.history.validation_nll.append(done[-1]["nll"])

    def on_end(self, run: TrainingState) -> None:
        """Restore the best weights, if they were kept."""
        if self.best_weights is not None:
            self._restore_best(run, self.best_weights)

    def _restore_best(self, run: TrainingState, weights: dict[str, Tensor]) -> None:
        held = run.model.state_dict()  # a checkpoint has whole ones
        best = {name: as_held(value, held[name]) for name, value in weights.items()}
        run.model.load_state_dict(best)

    def evaluate(self, run: TrainingState) -> None:
        """Evaluate, and stop or lower the learning rate if due."""
        found = self.scores(run.scored)
        run.history.evaluations.append({"step": run.step, "epoch": run.epoch, **found})
        value = found[self.stop_on]
        if self.is_better(value):
            self.best, self.best_step, self.waiting, self.since_fall = value, run.step, 0, 0
            history, midway = run.history, run.step_of_epoch > 0
            history.best_epoch, history.best_step = run.epoch + midway, run.step
            history.best_score = value
            if self.keep_best:
                state = run.scored.state_dict()
                self.best_weights = {name: each.detach().clone() for name, each in state.items()}
        else:
            self.waiting += 1
            self.since_fall += 1
        if self.plateau is not None and self.since_fall >= self.plateau.patience:
            run.updater.scale *= self.plateau.factor
            self.since_fall = 0
        self._end_if_due(run)
        run.call("on_evaluation")

    def _end_if_due(self, run: TrainingState) -> None:
        """Stop when the patience has run out, after a cooldown if there is to be one."""
        if self.patience is None or (self.cooling is None and self.waiting < self.patience):
            return
        if self.cooling is None and self.cooldown and run.updater.schedule is not None:
            length = max(1, round(self.cooldown * run.step))
            if run.updater.schedule.steps:
                length = min(length, run.updater.schedule.steps - run.step)
            if length > 0 and self.best_weights is not None:
                self._restore_best(run, self.best_weights)
                self.cooling = run.updater.cooling = run.step, run.step + length
                return
        if self.cooling is not None and run.step < self.cooling[1]:
            return
        numbers = run.history.standardised is not None
        score = "loss" if numbers and self.stop_on == "nll" else self.stop_on
        score += f" {OF_STANDARDISED}" if run.history.standardised else ""
        reason = f"the validation {score} was best at step {self.best_step} ({self.best:.4g}) "
        if self.cooling is None:
            run.stop(f"{reason}and has not improved in {self.waiting} evaluations since")
        else:
            start, end = self.cooling
            run.stop(f"{reason}in a training that cooled down from step {start} to {end}")

    def is_better(self, value: float) -> bool:
        """Return whether a score is better than the best one so far; NaN is not."""
        if self.best is None or math.isnan(value):
            return self.best is None
        if math.isnan(self.best):
            return True
        return value > self.best if HIGHER_IS_BETTER[self.stop_on] else value < self.best

    def scores(self, model: Ensemble) -> dict[str, float]:
        """Return the ensemble's loss in the targets' unit as ``nll``, and the score to stop on."""
        losses, counts, self.first = [], [], None
        scored = _Scored(self.loss, self.stop_on) if self.stop_on != "nll" else None
        # A data loader draws a seed of its own, which must not change the training.
        with evaluating(model), torch.no_grad(), torch.random.fork_rng([]):
            for inputs, target in self.batches:
                target, weights = parted(target)
                output = self.strategy.outputs(model, inputs) if self.strategy else model(inputs)
                if self.first is None:
                    self.first = _first(output, target, weights)
                losses.append(self.loss.of_ensemble(output, target))
                counts.append(example_weights(self.loss.counts(target), weights))
                if scored is not None:
                    scored.add(output, target, weights)
        found = {"nll": self.unit(weighted_mean(losses, counts))}
        if scored is not None:
            found[self.stop_on] = scored.result()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and its weights."""
        weights = self.best_weights or {}
        return {
            "best": [self.best, self.best_step, self.waiting, self.since_fall],
            "has_weights": self.best_weights is not None,
            "in_unit_of_targets": True,
            "cooling": self.cooling,
            **self._first_as_state(),
            **{f"weights.{name}": value for name, value in weights.items()},
        }

    def _first_as_state(self) -> dict[str, Tensor]:
        """Return the first examples, from which the epoch that a checkpoint cuts is diagnosed."""
        if self.first is None or self.first.outputs is None:
            return {}
        targets, weights = parted(self.first.targets)
        known = {"outputs": self.first.outputs, "targets": targets, "weights": weights}
        return {f"first.{name}": value for name, value in known.items() if value is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        if self.keep_best and not state["has_weights"]:
            return  # they were not kept then, so only later ones can be restored
        self.best, self.best_step, self.waiting, self.since_fall = state["best"]
        # Earlier versions stored the loss of standardised targets.
        if self.best is not None and self.stop_on == "nll" and "in_unit_of_targets" not in state:
            self.best = self.unit(self.best)
        if "first.outputs" in state:
            targets, weights = state["first.targets"], state.get("first.weights")
            some = targets if weights is None else Weighted(targets, weights)
            self.first = Evaluated(state["first.outputs"], some)
        cooling = state.get("cooling")  # which earlier versions did not store
        self.cooling = None if cooling is None else (cooling[0], cooling[1])
        if state["has_weights"]:
            start = "weights."
            self.best_weights = {
                name.removeprefix(start): value
                for name, value in state.items()
                if name.startswith(start)
            }


def _first(outputs: Any, targets: Tensor, weights: Tensor | None) -> Evaluated:
    """Return the first examples of a batch; a copy, since a part would keep all in memory."""
    some: Targets = targets[:EXAMPLES]
    if weights is not None:
        some = Weighted(targets[:EXAMPLES], weights[:EXAMPLES])
    of_classes = isinstance(outputs, Tensor) and outputs.dim() == 3
    return Evaluated(outputs[:EXAMPLES].clone() if of_classes else None, some)


def example_weights(counts: Tensor | None, weights: Tensor | None) -> Tensor | None:
    """Return the weight of each example; ``None`` if all have the same."""
    if counts is None or weights is None:
        return weights if counts is None else counts
    return counts * weights


def weighted_mean(losses: list[Tensor], counts: list[Tensor | None]) -> float:
    """Return the weighted mean of the losses of all batches.

    Raises:
        ValueError: all weights are 0.
    """
    whole = torch.cat(losses)
    if any(each is None for each in counts):
        return whole.mean().item()
    whole = whole.to(exact(whole.device))
    weights = torch.cat([each for each in counts if each is not None]).to(whole)
    if not weights.any():
        raise ValueError(
            "the validation data must hold at least one target that counts, but all are ignored, "
            "not known, or of weight 0"
        )
    return ((whole * weights).sum() / weights.sum()).item()


class _Scored:
    """The outputs and targets of all batches, of which one score is computed at the end."""

    def __init__(self, loss: EnsembleLoss, name: str) -> None:
        self.loss, self.name, self.reading = loss, name, reading(loss)
        self.arrays: list[Arrays] = []
        self.targets: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []

    def add(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> None:
        """Add a batch."""
        if isinstance(self.loss, (ClassLoss, Custom)):
            probs = self.reading.arrays(outputs.double())[0]
            probs, targets, weights = class_entries(self.loss, probs, targets, weights)
            self.arrays.append((probs.cpu().numpy(),))
        else:
            self.arrays.append(self.reading.of(outputs))
        exact_targets = targets.double() if targets.is_floating_point() else targets
        self.targets.append(exact_targets.cpu().numpy())
        if weights is not None:
            self.weights.append(weights.double().cpu().numpy())

    def result(self) -> float:
        """Return the score of all batches.

        Raises:
            ValueError: it does not exist for these targets, such as R² where all are the same.
        """
        prediction = self.reading.make(
            *(np.concatenate(each) for each in zip(*self.arrays, strict=True))
        )
        weights = np.concatenate(self.weights) if self.weights else None
        found = score_by_name(prediction, np.concatenate(self.targets), self.name, weights)
        if math.isnan(found):
            raise ValueError(
                f"stop_on={self.name!r} is not defined for this validation data, whose targets are "
                "all the same or of one class; give more of it, or leave stop_on out"
            )
        return found


def class_entries(
    loss: EnsembleLoss, probs: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each entry's probabilities, ``[entries, members, classes]``, class, and weight.

    Entries are examples, or their tokens or pixels; what the loss ignores is left out.

    Args:
        loss: the loss that the outputs were trained with.
        probs: the members' probabilities, ``[batch, members, classes, ...]``.
        targets: the classes, ``[batch, ...]``.
        weights: how much each example counts, ``[batch]``; ``None`` if all count the same.
    """
    probs = probs.movedim((1, 2), (-2, -1)).flatten(0, -3)
    if weights is not None:
        weights = weights.repeat_interleave(targets[0].numel())
    targets = targets.flatten()
    ignored = loss.ignore_index if isinstance(loss, ClassLoss) else None
    if ignored is None:
        return probs, targets, weights
    known = targets != ignored
    return probs[known], targets[known], None if weights is None else weights[known]
