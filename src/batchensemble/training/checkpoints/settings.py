"""What a training and the checkpoint that it goes on from have to agree on."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from dataclasses import is_dataclass, replace
from typing import Any

from batchensemble.losses import EnsembleLoss
from batchensemble.losses.base import Custom
from batchensemble.training.callbacks.base import TrainingState
from batchensemble.training.optim.schedules import Plateau, Schedule

LONGEST = 120  # characters of a setting that a sentence shows


def resume_settings(
    *, optimizer: Any, loss: EnsembleLoss, schedule: Any, steering: Any, **settings: Any
) -> dict[str, Any]:
    """Return what has to be the same for a training to go on to the weights of the unbroken one.

    Objects and functions of the user's own are known by the name of their class alone.

    Args:
        optimizer: as ``fit`` takes it; one of the user's own sees to its learning rate itself.
        loss: with all of its settings.
        schedule: as ``fit`` takes it.
        steering: how held-out data are scored, where the training goes by that; else ``None``.
        settings: those that every training has, by the name of their argument.

    Example:
        >>> from batchensemble.losses import Huber
        >>> rest = {"schedule": "constant", "steering": None, "lr": 0.1, "seed": 0}
        >>> resume_settings(optimizer="adam", loss=Huber(), **rest)
        {'loss': 'Huber(delta=1.0)', 'optimizer': 'adam', 'schedule': 'constant', \
'held-out scoring': None, 'lr': 0.1, 'seed': 0}
    """
    of_rates = {"lr", "weight_decay", "fast_lr_multiplier", "cooldown", "warmup"}
    used = {
        name: value
        for name, value in settings.items()
        if isinstance(optimizer, str) or name not in of_rates
    }
    return {
        "loss": _name(loss.function if isinstance(loss, Custom) else loss),
        "optimizer": _name(optimizer),
        "schedule": _name(schedule),
        "held-out scoring": steering,
        **used,
    }


def warn_of_other_rates(run: TrainingState, epochs: int) -> None:
    """Warn where steps that are done had other learning rates than a longer training would have.

    Args:
        run: brought to where the checkpoint was written.
        epochs: of the training that wrote it.
    """
    schedule: Schedule | None = getattr(run.updater, "schedule", None)
    if epochs == run.epochs or schedule is None or not schedule.steps:
        return
    then = replace(schedule, steps=schedule.steps // run.epochs * epochs)
    if any(then.at(step) != schedule.at(step) for step in range(run.step)):
        warnings.warn(
            f"the checkpoint is of a training of {epochs} epochs, whose learning rate fell towards "
            f"their end, and here there are {run.epochs}: the rate of the next step is that of "
            f"{run.epochs} epochs, but the result is not that of so many from the start on; that "
            "needs schedule='constant' and cooldown=0 in both",
            stacklevel=4,
        )


def _name(value: Any) -> Any:
    """Return text that is the same in another process."""
    if inspect.isroutine(value):
        return "a function of your own"
    if not isinstance(value, (str, EnsembleLoss, Plateau)):
        return value.__name__ if isinstance(value, type) else type(value).__name__
    text = value if isinstance(value, str) else repr(value)
    if isinstance(value, EnsembleLoss) and not is_dataclass(value):
        text = type(value).__name__  # whose repr may be an address
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
