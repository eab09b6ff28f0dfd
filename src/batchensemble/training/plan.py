"""``TrainingPlan``: every option of a training that is neither data nor an object of the run."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from numbers import Number
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from batchensemble.core.arguments import fraction, one_of, positive_number, whole_number
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.ensembles.conversion.rules import Selectors
from batchensemble.losses import EnsembleLoss, Loss, LossOn, as_loss
from batchensemble.losses.base import Custom
from batchensemble.metrics.by_name import names_of_scores
from batchensemble.training.optim.optimizers import OPTIMIZERS, OptimizerFactory, SchedulerFactory
from batchensemble.training.optim.schedules import SHAPES, Plateau, Shape
from batchensemble.training.sampling import Sampling

StrategyName = Literal["ddp", "fsdp", "members"]

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

# Options of one run: they change where it stores and what it prints, not what is trained.
OF_THE_RUN = ("checkpoints", "checkpoint_every", "keep", "resume", "progress", "label")
RATES = ("lr", "weight_decay", "fast_lr_multiplier", "cooldown", "warmup")
LONGEST_SHOWN = 120  # characters of an option that a sentence shows


@dataclass(frozen=True)
class TrainingPlan:
    """The options of a training, checked when the plan is made.

    Attributes are the arguments of :func:`batchensemble.fit` of the same names, with its defaults.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: an option is out of range, or two do not go together.

    Example:
        >>> TrainingPlan(epochs=0)
        Traceback (most recent call last):
        ValueError: epochs must be at least 1, got 0
    """

    target: str | None = None
    class_names: Sequence[Any] = ()
    memory_limit: int = MEMORY_LIMIT
    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    loss: str | Loss = "cross_entropy"
    loss_on: LossOn = "members"
    class_weight: Any = None
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    standardise_targets: bool = False
    per_member_targets: bool = False
    optimizer: str | Optimizer | OptimizerFactory = "adam"
    weight_decay: float = 0.0
    fast_lr_multiplier: float = 1.0
    schedule: Shape | Plateau | SchedulerFactory = "constant"
    cooldown: float | None = None
    warmup: int = 0
    clip: float | None = None
    precision: str = "float32"
    average: float | None = None
    shuffle: bool = True
    batches: Sampling | None = None
    micro_batch: int | None = None
    gradient_checkpointing: bool | Selectors = False
    compile: bool | str = False
    evaluate_every: int | None = None
    stop_on: str = "nll"
    patience: int | None = None
    time_budget: float | None = None
    refit: bool = False
    checkpoints: str | Path | None = None
    checkpoint_every: int | None = None
    keep: int = 2
    resume: bool = False
    seed: int | None = 0
    progress: bool | None = None
    label: str = "training"
    strategy: StrategyName = "ddp"
    members: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_members()
        self._check_names()
        if self.checkpoints is not None and self.seed is None:
            raise ValueError(
                "checkpoints need a seed, so that the order of the data can be resumed"
            )
        if self.per_member_targets and self.loss_on == "mean_logits":
            raise ValueError(
                "loss_on='mean_logits' is one loss of all members, which cannot have targets of "
                "their own; leave per_member_targets=True out"
            )

    def _check_numbers(self) -> None:
        """Check the numbers, and hold them as Python's own, which JSON can store."""
        numbers: dict[str, int | float] = {
            "epochs": whole_number("epochs", self.epochs),
            "batch_size": whole_number("batch_size", self.batch_size),
            "lr": positive_number("lr", self.lr),
            "warmup": whole_number("warmup", self.warmup, at_least=0),
            "keep": whole_number("keep", self.keep),
        }
        for name in ("micro_batch", "evaluate_every", "patience", "checkpoint_every"):
            if (value := getattr(self, name)) is not None:
                numbers[name] = whole_number(name, value)
        for name in ("cooldown", "average"):
            if (value := getattr(self, name)) is not None:
                numbers[name] = fraction(name, value)
        if self.time_budget is not None:
            numbers["time_budget"] = positive_number("time_budget", self.time_budget)
        for name, number in numbers.items():
            object.__setattr__(self, name, number)  # the dataclass is frozen

    def _check_members(self) -> None:
        """Check the numbers of members, and hold them as a tuple of Python's own."""
        if self.members is None:
            return
        if isinstance(self.members, (str, Number)) or not hasattr(self.members, "__iter__"):
            raise TypeError(
                f"members must be a list of members' numbers, as in [2], got {self.members!r}"
            )
        members = tuple(whole_number("members", each, at_least=0) for each in self.members)
        if not members or len(set(members)) < len(members):
            raise ValueError(f"members must be different numbers, at least one, got {members}")
        object.__setattr__(self, "members", members)

    def _check_names(self) -> None:
        one_of("precision", self.precision, PRECISIONS)
        if self.stop_on != "nll":  # which each loss has
            one_of("stop_on", self.stop_on, names_of_scores(self.make_loss()))
        if isinstance(self.optimizer, str):
            one_of("optimizer", self.optimizer, OPTIMIZERS)
        if isinstance(self.schedule, str):
            one_of("schedule", self.schedule, SHAPES)
        if isinstance(self.compile, str):
            one_of("compile", self.compile, COMPILE_MODES)

    @property
    def plateau(self) -> Plateau | None:
        """The schedule, if it depends on held-out scores."""
        return self.schedule if isinstance(self.schedule, Plateau) else None

    @property
    def scores_steer(self) -> bool:
        """Whether held-out scores change the learning rate or the end of the training."""
        return self.plateau is not None or self.patience is not None

    @property
    def keeps_best(self) -> bool:
        """Whether the weights with the best held-out score are restored at the end."""
        return self.patience is not None or self.time_budget is not None

    @property
    def cooldown_on_stop(self) -> float:
        """The cooldown of a training that stops early, which has to be asked for."""
        averaged = self.patience is None or self.average is not None
        return 0.0 if averaged or self.cooldown is None else self.cooldown

    def make_loss(self) -> EnsembleLoss:
        """Return the loss that the options name.

        Raises:
            ValueError: an unknown name, or an option that the loss does not have.
        """
        return as_loss(
            self.loss,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )

    def resume_settings(
        self, loss: EnsembleLoss, *, cooldown: float, seed: int | None
    ) -> dict[str, Any]:
        """Return what has to be the same for a training to resume from a checkpoint.

        Objects and functions of the user's own are known by the name of their class alone.

        Args:
            loss: the plan's, with what the data decided: weights of classes, units of targets.
            cooldown: the plan's, or the default that the length of the data gives.
            seed: the plan's, or the one that the processes agreed on.

        Example:
            >>> from batchensemble.losses import Huber
            >>> list(TrainingPlan().resume_settings(Huber(), cooldown=0.1, seed=0))[:4]
            ['loss', 'optimizer', 'schedule', 'held-out scoring']
        """
        every = f"{self.stop_on} every {self.evaluate_every or 'epoch'}"
        every += ", then a cooldown" if self.cooldown_on_stop else ""
        settings: dict[str, Any] = {
            "loss": describe(loss.function if isinstance(loss, Custom) else loss),
            "optimizer": describe(self.optimizer),
            "schedule": describe(self.schedule),
            "held-out scoring": every if self.scores_steer else None,
            "loss_on": self.loss_on,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "fast_lr_multiplier": self.fast_lr_multiplier,
            "cooldown": cooldown,
            "warmup": self.warmup,
            "clip": self.clip,
            "precision": self.precision,
            "average": self.average,
            "shuffle": self.shuffle,
            "batches": self.batches,
            "seed": seed,
        }
        if self.members is not None:
            settings["members trained"] = list(self.members)
        if not isinstance(self.optimizer, str):  # which has learning rates of its own
            settings = {name: value for name, value in settings.items() if name not in RATES}
        return settings

    def to_dict(self) -> dict[str, Any]:
        """Return the options that decide what is trained, as JSON can hold them.

        Example:
            >>> TrainingPlan(lr=0.1, label="mine").to_dict()["lr"]
            0.1
        """
        names = [each.name for each in fields(self) if each.name not in OF_THE_RUN]
        return {name: _as_json(getattr(self, name)) for name in names}


def changed_options(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a stored plan that are not the defaults of this version.

    Args:
        plan: the result of :meth:`TrainingPlan.to_dict`.

    Example:
        >>> changed_options(TrainingPlan(epochs=3, lr=0.1).to_dict())
        {'epochs': 3, 'lr': 0.1}
    """
    defaults = TrainingPlan().to_dict()
    return {
        name: value
        for name, value in plan.items()
        if name not in defaults or value != defaults[name]
    }


def describe(value: Any) -> Any:
    """Return text for an option that is the same in another process.

    Example:
        >>> describe("adam"), describe(len), describe(Plateau(patience=5))
        ('adam', 'a function of your own', 'Plateau(patience=5, factor=0.5)')
    """
    if inspect.isroutine(value):
        return "a function of your own"
    if not isinstance(value, (str, EnsembleLoss, Plateau)):
        return value.__name__ if isinstance(value, type) else type(value).__name__
    text = value if isinstance(value, str) else repr(value)
    if isinstance(value, EnsembleLoss) and not is_dataclass(value):
        text = type(value).__name__  # whose repr may be an address
    if len(text) <= LONGEST_SHOWN:
        return text
    return f"{text[:LONGEST_SHOWN]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _as_json(value: Any) -> Any:
    if hasattr(value, "tolist"):  # a number or an array of NumPy or torch
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    return describe(value)
