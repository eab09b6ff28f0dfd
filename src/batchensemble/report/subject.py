"""The subject of a report: a comparison or a model, and the command that makes it again."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchensemble.comparison.results import Comparison, Settings, comparison_loss
from batchensemble.data.datasets import Data

SETTING_TITLES = {
    "members": "Members per ensemble",
    "epochs": "Epochs",
    "batch_size": "Batch size",
    "lr": "Learning rate",
    "optimizer": "Optimiser",
    "weight_decay": "Weight decay",
    "cooldown": "Cooldown (share of the steps)",
    "patience": "Patience (epochs)",
    "architecture": "Network",
    "hidden": "Widths of the hidden layers",
    "dropout": "Dropout",
    "seeds": "Seeds",
    "loss": "Loss",
}


@dataclass(frozen=True)
class Subject:
    """A comparison, or one trained model as a comparison of one.

    Attributes:
        comparison: the comparison, with its runs, data and plane.
        kind: the line above the title, such as ``"Trained model"``.
        facts: the line below the title.
        command: command that makes it again, for a POSIX shell.
        settings: pairs of title and value.
        results: all numbers, as in ``results.json``.
        notes: sentences below the command.
    """

    comparison: Comparison
    kind: str
    facts: str
    command: str
    settings: tuple[tuple[str, str], ...]
    results: dict[str, Any]
    notes: tuple[str, ...] = ()


def subject_from_comparison(comparison: Comparison) -> Subject:
    """Return a comparison as the subject of a page."""
    notes = []
    path = comparison.data.path
    if path is not None and not Path(path).is_absolute():
        notes.append("The path of the file is relative to where the command runs.")
    if comparison.recipe is not None:
        notes.append(
            "A recipe has its own networks and training; the settings below are those that it "
            "shares with other comparisons."
        )
    return Subject(
        comparison,
        "Comparison of ensembles",
        _facts(comparison),
        command(comparison),
        (("Methods", ", ".join(comparison.settings.methods)), *_settings(comparison)),
        comparison.to_dict(),
        tuple(notes),
    )


def command(comparison: Comparison) -> str:
    """Return the command line that makes this comparison again, for a POSIX shell."""
    parts = ["batchensemble", "compare"]
    settings, data = comparison.settings, comparison.data
    if comparison.recipe is not None:
        return shlex.join([*parts, "--recipe", comparison.recipe])
    parts += ["--data", data.path or data.name]
    if data.target is not None:
        parts += ["--target", data.target]
    if data.target is not None:
        parts += ["--task", data.task]
        if settings.architecture != "table":
            parts += ["--architecture", settings.architecture]
    for option, names in asdict(data.choices).items():
        parts += [f"--{option}", ",".join(names)] if names else []
    if settings.loss is not None:
        parts += ["--loss", settings.loss]
    parts += ["--methods", ",".join(settings.methods), "--members", str(settings.members)]
    parts += ["--epochs", str(settings.epochs), "--batch-size", str(settings.batch_size)]
    parts += ["--lr", str(settings.lr)]
    if settings.cooldown != (0.0 if data.target is not None else Settings.cooldown):
        parts += ["--cooldown", str(settings.cooldown)]
    parts += ["--hidden", ",".join(map(str, settings.hidden)), "--seeds", str(settings.seeds)]
    return shlex.join(parts)


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, in the plural unless it is 1.

    Example:
        >>> counted(1, "seed"), counted(2000, "example")
        ('1 seed', '2,000 examples')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def epochs_of(settings: Settings) -> str:
    """Return the number of epochs, which early stopping may cut short."""
    most = "at most " if settings.patience is not None else ""
    return f"{most}{counted(settings.epochs, 'epoch')}"


def _facts(comparison: Comparison) -> str:
    data, settings = comparison.data, comparison.settings
    seeds = len({run.seed for run in comparison.runs})
    stopping = "" if data.stopping is None else f", {len(data.stopping[0]):,} validation"
    examples = (
        f"{len(data.train[0]):,} training{stopping} and {len(data.held_out[0]):,} held-out examples"
    )
    return (
        f"{examples}, {counted(len(data.columns), 'feature')}, {predicted(data)}; "
        f"{counted(settings.members, 'member')}, {epochs_of(settings)}, "
        f"{counted(seeds, 'seed')}"
    )


def predicted(data: Data) -> str:
    """Return what is predicted."""
    return f"{data.classes} classes" if data.classes else "a number to predict"


def _settings(comparison: Comparison) -> list[tuple[str, str]]:
    settings = comparison.settings
    values = {**asdict(settings), "loss": comparison_loss(settings, comparison.data)}
    titles = SETTING_TITLES.items()
    return [(title, text_of(values[name])) for name, title in titles if values[name] is not None]


def text_of(setting: Any) -> str:
    """Return a setting as the page shows it.

    Example:
        >>> text_of((128, 64)), text_of(()), text_of(0.5)
        ('128, 64', 'none', '0.5')
    """
    if isinstance(setting, (tuple, list)):
        return ", ".join(map(str, setting)) or "none"
    return str(setting)
