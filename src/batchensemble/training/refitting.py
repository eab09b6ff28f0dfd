"""A second training from the same start, on all rows, for as long as was best in the first one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from batchensemble.core.inputs import Inputs, Nested
from batchensemble.core.pytree import map_leaves
from batchensemble.data.batches import ArrayBatches
from batchensemble.ensembles import Ensemble
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.callbacks.validation import EarlyStopping
from batchensemble.training.distributed.processes import from_launcher
from batchensemble.training.history import History
from batchensemble.training.plan import TrainingPlan


@dataclass(frozen=True)
class SecondTraining:
    """What the second training is made of.

    Attributes:
        plan: its options.
        data: the batches of all rows.
        steps: number of its steps.
        callbacks: what ends it at that step.
    """

    plan: TrainingPlan
    data: ArrayBatches
    steps: int
    callbacks: list[Callback]


class StopAt(Callback):
    """Ends a training after a number of steps."""

    every_process = True

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, run: TrainingState) -> None:
        """End the training."""
        if run.step >= self.steps:
            run.stop(f"it had {self.steps} steps to do")


class Refitting:
    """The start of a training, and what is needed to train from there again.

    Args:
        plan: the options, with ``refit=True``.
        model: the ensemble before it is trained.
        validation: the user's held-out data, or a share of the rows.

    Raises:
        ValueError: an option does not go with a second training.
    """

    def __init__(self, plan: TrainingPlan, model: Ensemble, validation: Any) -> None:
        self.plan, self.model = plan, model
        if validation is None:
            raise ValueError(
                "validation is missing: refit=True trains for as long as was best on held-out data"
            )
        refused = {
            "checkpoints=": plan.checkpoints is not None,
            "per_member_targets=True": plan.per_member_targets,
            "schedule=Plateau()": plan.plateau is not None,
            "an optimiser that is made already": isinstance(plan.optimizer, Optimizer),
            "several processes": from_launcher().count > 1,
        }
        if found := [name for name, given in refused.items() if given]:
            raise ValueError(
                "refit=True trains a second time, from the initial weights and on other rows, "
                f"which does not go with {found[0]}; leave one of them out"
            )
        self.initial = {name: each.detach().clone() for name, each in model.state_dict().items()}
        self.parts: tuple[ArrayBatches, ArrayBatches] | None = None

    @property
    def first(self) -> TrainingPlan:
        """The options of the first training, which may use half of a time budget."""
        budget = self.plan.time_budget
        return self.plan if budget is None else replace(self.plan, time_budget=budget / 2)

    def check(self, run: TrainingState) -> None:
        """Keep the data of the first training, before its first step.

        Raises:
            ValueError: they are not arrays or tables in memory.
        """
        held_out = next(each for each in run.callbacks if isinstance(each, EarlyStopping)).batches
        if not isinstance(run.batches, ArrayBatches) or not isinstance(held_out, ArrayBatches):
            raise ValueError(
                "refit=True joins the training and the held-out rows, which have to be arrays or "
                "tables in memory; give those, or leave refit=True out"
            )
        self.parts = run.batches, held_out

    def next(self, history: History, seconds: float) -> SecondTraining:
        """Return the second training, and give the model its initial weights back.

        Args:
            history: that of the first training.
            seconds: its duration.
        """
        assert self.parts is not None
        assert history.best_step is not None
        train, held_out = self.parts
        data = joined_rows(train, held_out)
        steps = max(1, round(history.best_step * len(data) / len(train)))
        budget = self.plan.time_budget
        plan = replace(
            self.plan,
            refit=False,
            patience=None,
            evaluate_every=None,
            stop_on="nll",
            epochs=-(-steps // len(data)),
            time_budget=None if budget is None else max(budget - seconds, 1e-3),
        )
        self.model.load_state_dict(self.initial)
        return SecondTraining(plan, data, steps, [StopAt(steps)] if steps % len(data) else [])

    def record(self, history: History, second: TrainingState) -> None:
        """Put into the first training's history what the second one did."""
        done = second.history
        history.refit = {
            "epochs": done.epochs,
            "steps": second.step,
            "examples": len(second.batches.inputs),  # type: ignore[attr-defined]
            "losses": done.losses,
            "seconds": done.total_seconds,
        }
        history.plan = self.plan.to_dict()


def joined_rows(one: ArrayBatches, other: ArrayBatches) -> ArrayBatches:
    """Return the batches of the examples of both, drawn and named as the first ones.

    Args:
        one: the batches to train on.
        other: held-out examples; without weights each counts 1.
    """
    found = one.rows(torch.arange(len(one.inputs), device=one.targets.device))
    found.inputs = _cat(one.inputs, other.inputs)
    targets = other.targets.to(one.targets.device)
    if targets.shape[1:] != one.targets.shape[1:]:
        targets = targets.reshape(len(targets), *one.targets.shape[1:])
    found.targets = torch.cat([one.targets, targets])
    if one.weights is not None or other.weights is not None:
        known = next(each.weights for each in (one, other) if each.weights is not None)
        parts = [
            known.new_ones(len(each.inputs)) if each.weights is None else each.weights
            for each in (one, other)
        ]
        found.weights = torch.cat(parts)
    return found


def _cat(one: Inputs, other: Inputs) -> Inputs:
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor)
        return torch.cat([one, other])
    assert isinstance(other, Nested)
    return Nested(map_leaves(lambda _, *both: torch.cat(both), one.values, other.values))
