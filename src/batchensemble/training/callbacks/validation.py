"""Evaluation on held-out data during a training: scores, the best weights, early stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.dtensor import as_held
from batchensemble.data.batches import Batches
from batchensemble.ensembles import Ensemble
from batchensemble.layers.modes import evaluating
from batchensemble.losses import ClassLoss, EnsembleLoss
from batchensemble.losses.standardised import OF_STANDARDISED
from batchensemble.losses.targets import exact, parted
from batchensemble.metrics import BINS, losses_by_example, score
from batchensemble.metrics.calibration.reliability import bins_of, edges_of
from batchensemble.predictions import Prediction
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.optim.schedules import Plateau
from batchensemble.training.plan import SCORES


class EarlyStopping(Callback):
    """Evaluates the ensemble on held-out data after each epoch, or every ``every`` steps.

    Args:
        batches: held-out inputs and targets.
        every: number of steps between two evaluations; ``None`` evaluates after each epoch.
        stop_on: the score that decides which weights are best, a name of
            :data:`~batchensemble.training.plan.SCORES`.
        patience: stop after this number of evaluations without a better score, and restore the best
            weights. ``None`` trains to the end and leaves the last weights.
        plateau: lowers the learning rate when the score does not improve; ``None`` does not.
        loss: the loss, whose ``of_ensemble`` gives the score named ``"nll"``.
        strategy: how processes share the computation; ``None`` for a single process.

    Raises:
        ValueError: the score does not exist for the loss.
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
        plateau: Plateau | None = None,
        loss: EnsembleLoss,
        strategy: Strategy | None = None,
    ) -> None:
        self.strategy = strategy
        self.batches, self.loss, self.plateau = batches, loss, plateau
        self.every, self.stop_on, self.patience = every, stop_on, patience
        if stop_on != "nll" and not loss.logits:
            raise ValueError(
                f"stop_on={stop_on!r} is a score of class probabilities, which {loss} does not "
                "have; leave it out to use the held-out loss"
            )
        self.optional_state = (
            patience is None and plateau is None
        )  # the training depends on neither
        self.best: float | None = None
        self.best_step = self.waiting = self.since_fall = 0
        self.best_weights: dict[str, Tensor] | None = None

    def on_step(self, run: TrainingState) -> None:
        """Evaluate every ``every`` steps."""
        if self.every is not None and run.step % self.every == 0:
            self.evaluate(run)

    def on_epoch(self, run: TrainingState) -> None:
        """Evaluate, unless that was done after the last step."""
        done = run.history.evaluations
        if not done or done[-1]["step"] != run.step:
            self.evaluate(run)
        run.history.validation_nll.append(done[-1]["nll"])

    def on_end(self, run: TrainingState) -> None:
        """Restore the best weights, if there is a patience."""
        if self.best_weights is not None:
            held = run.model.state_dict()  # a checkpoint has whole ones
            best = {name: as_held(value, held[name]) for name, value in self.best_weights.items()}
            run.model.load_state_dict(best)

    def evaluate(self, run: TrainingState) -> None:
        """Evaluate, and stop or lower the learning rate if due."""
        found = self.scores(run.scored)
        run.history.evaluations.append({"step": run.step, "epoch": run.epoch, **found})
        value = found[self.stop_on]
        if self.best is None or (value > self.best if SCORES[self.stop_on] else value < self.best):
            self.best, self.best_step, self.waiting, self.since_fall = value, run.step, 0, 0
            history, midway = run.history, run.step_of_epoch > 0
            history.best_epoch, history.best_step = run.epoch + midway, run.step
            history.best_score = value
            if self.patience is not None:
                state = run.scored.state_dict()
                self.best_weights = {name: each.detach().clone() for name, each in state.items()}
        else:
            self.waiting += 1
            self.since_fall += 1
        if self.plateau is not None and self.since_fall >= self.plateau.patience:
            run.updater.scale *= self.plateau.factor
            self.since_fall = 0
        if self.patience is not None and self.waiting >= self.patience:
            numbers = run.history.standardised is not None
            score = "loss" if numbers and self.stop_on == "nll" else self.stop_on
            score += f" {OF_STANDARDISED}" if run.history.standardised else ""
            run.stop(
                f"the held-out {score} was best at step {self.best_step} ({self.best:.4g}) "
                f"and has not improved in {self.waiting} evaluations since"
            )
        run.call("on_evaluation")

    def scores(self, model: Ensemble) -> dict[str, float]:
        """Return the ensemble's loss as ``nll``, and the score to stop on."""
        losses, counts, outputs, targets = [], [], [], []
        each: list[Tensor | None] = []
        # A data loader draws a seed of its own, which must not change the training.
        with evaluating(model), torch.no_grad(), torch.random.fork_rng([]):
            for inputs, target in self.batches:
                target, weights = parted(target)
                output = self.strategy.outputs(model, inputs) if self.strategy else model(inputs)
                losses.append(self.loss.of_ensemble(output, target))
                counts.append(example_weights(self.loss.counts(target), weights))
                if self.stop_on != "nll":
                    probs, labels, some = class_entries(self.loss, output, target, weights)
                    outputs.append(probs.cpu())
                    targets.append(labels.cpu())
                    each.append(some)
        found = {"nll": weighted_mean(losses, counts)}
        if self.stop_on != "nll":
            known = [some.cpu() for some in each if some is not None]
            of_entries = torch.cat(known).double().numpy() if known else None
            entries = torch.cat(outputs).numpy(), torch.cat(targets).numpy()
            found[self.stop_on] = _score(self.stop_on, *entries, of_entries)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and its weights."""
        weights = self.best_weights or {}
        return {
            "best": [self.best, self.best_step, self.waiting, self.since_fall],
            "has_weights": self.best_weights is not None,
            **{f"weights.{name}": value for name, value in weights.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.best, self.best_step, self.waiting, self.since_fall = state["best"]
        if state["has_weights"]:
            start = "weights."
            self.best_weights = {
                name.removeprefix(start): value
                for name, value in state.items()
                if name.startswith(start)
            }


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


def class_entries(
    loss: EnsembleLoss, outputs: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each entry's probabilities, ``[entries, members, classes]``, class, and weight.

    Entries are examples, or their tokens or pixels; what the loss ignores is left out.
    """
    probs = outputs.movedim((1, 2), (-2, -1)).flatten(0, -3).double().softmax(-1)
    if weights is not None:
        weights = weights.repeat_interleave(targets[0].numel())
    targets = targets.flatten()
    ignored = loss.ignore_index if isinstance(loss, ClassLoss) else None
    if ignored is None:
        return probs, targets, weights
    known = targets != ignored
    return probs[known], targets[known], None if weights is None else weights[known]


def _score(name: str, probs: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> float:
    """Return a score of class probabilities; of examples with weights the weighted one."""
    prediction = Prediction(probs)
    if weights is None:
        found: float = score(prediction, labels)[name]
        return found
    if name == "ece":
        confidence = prediction.confidence
        gaps = weights * (confidence - (prediction.labels == labels))
        bins = bins_of(confidence, edges_of(confidence, BINS, "width"))
        return float(np.abs(np.bincount(bins, gaps)).sum() / weights.sum())
    losses = losses_by_example(prediction, labels, "error" if name == "accuracy" else "brier")
    mean = float(losses @ weights / weights.sum())
    return 1 - mean if name == "accuracy" else mean
