"""Training from settings into a folder with the model, its history and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchensemble.cli.workflows.scored_rows import held_out_rows, scores_of
from batchensemble.cli.workflows.settings import (
    SETTINGS_FILE,
    column_choices,
    fit_arguments,
    method_arguments,
    write,
)
from batchensemble.core.atomic_files import leaving_nothing_empty, write_whole
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.encoding.leaks import column_notes
from batchensemble.data.tables.files import Files
from batchensemble.data.train_test import TrainingData, open_data
from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.ensembles.networks import find_network, multilayer_perceptron
from batchensemble.ensembles.saving import save
from batchensemble.losses import EnsembleLoss, as_loss, outputs_for
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.callbacks.tracking import JsonLines, Tracking
from batchensemble.training.checks import check_order
from batchensemble.training.distributed.processes import from_launcher
from batchensemble.training.fit import fit
from batchensemble.training.history import History
from batchensemble.training.table_recipe import TableRecipe, batch_size_for, build_table_ensemble

CHECKPOINTS = "checkpoints"


SayNotes = Callable[[Sequence[str]], None]


def train_model(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
    say: SayNotes | None = None,
) -> tuple[Ensemble, History, Mapping[str, Any]]:
    """Train a model by settings, and write everything into a folder.

    ``run.toml`` and ``history.jsonl`` are written from the first step, ``checkpoints/`` from the
    first epoch; ``model.safetensors``, ``config.json`` and ``history.json`` at the end. Invalid
    settings leave no files.

    Args:
        settings: from :func:`batchensemble.cli.workflows.settings.resolve`.
        folder: created when the training starts.
        resume: resume from the newest checkpoint in the folder, if there is one.
        progress: show a bar; by default only in a terminal.
        say: called with notes on the columns of a table when the training starts.

    Returns:
        The ensemble, its history, and its scores on the held-out examples, those of
        :func:`batchensemble.evaluate`.

    Raises:
        ValueError: a setting or the data are invalid, or the folder has another training.
        CheckpointError: a checkpoint is of another training.
        WriteError: a file cannot be written during training; earlier checkpoints are complete.
        SystemExit: SIGTERM (143) or Ctrl-C (130); the training can be resumed.
    """
    checkpoints = folder / CHECKPOINTS
    if not resume and any(checkpoints.glob("step-*")):
        raise ValueError(
            f"{folder} has a training already; give --resume to continue it, or another folder "
            "with --out"
        )
    loss, limit = as_loss(settings["loss"]), settings.get("memory_limit", MEMORY_LIMIT)
    data = _data(settings, loss)
    settings = {"batch_size": batch_size_for(data.training_rows), **settings}
    arguments = fit_arguments(settings)
    model = build_model(settings, data, loss)
    trackers = [Tracking(name, folder) for name in arguments.pop("trackers", ())]
    lines = JsonLines(folder / "history.jsonl")
    started = _Started(folder / SETTINGS_FILE, settings, _notes(data), say)
    with leaving_nothing_empty(checkpoints):
        history = fit(
            model,
            data.train,
            validation=data.validation,
            memory_limit=limit,
            # Arrays hold class numbers already.
            class_names=settings.get("classes", ()) if isinstance(data.train, Files) else (),
            checkpoints=checkpoints,
            resume=resume,
            callbacks=[started, lines, *trackers],
            progress=progress,
            **arguments,
        )
    model.eval()  # a saved model is mostly loaded for prediction
    data.columns.store_in(model)
    if from_launcher().writes:  # all processes have the same
        text = json.dumps(history.to_dict(), indent=1)
        write_whole(folder / "history.json", text.encode() + b"\n")
        save(
            model,
            folder,
            network=settings.get("network"),
            data=data.to_dict(settings["loss"]),
        )
    held_out = held_out_rows(model, data.held_out, data.name, data.columns, limit)
    return model, history, scores_of(model, held_out)


def _data(settings: Mapping[str, Any], loss: EnsembleLoss) -> TrainingData:
    """Return the data that settings name."""
    classes = settings.get("classes", ())
    data = open_data(
        settings["data"],
        settings.get("target"),
        loss=loss,
        validation=settings.get("validation"),
        memory_limit=settings.get("memory_limit", MEMORY_LIMIT),
        class_names=classes,
        dialect=Dialect.from_settings(settings),
        choices=column_choices(settings),
        layout="codes" if settings.get("architecture") == "table" else "plain",
    )
    check_order(loss, data.columns.class_names, classes, "--classes")
    return data


def _notes(data: TrainingData) -> tuple[str, ...]:
    """Return what a user should know about the columns of a table, a sentence each."""
    encoding = data.columns.encoding
    if data.split.rule == "named" or encoding is None:
        return ()
    return column_notes(encoding, *data.sample)


class _Started(Callback):
    """Writes the settings and tells the notes when the training starts.

    Only then the settings are known to be valid.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], notes: Sequence[str], say: SayNotes | None
    ) -> None:
        self.path, self.content = path, write(settings).encode()
        self.notes, self.say = notes, say

    def on_start(self, run: TrainingState) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.content)
        if self.say is not None:
            self.say(self.notes)


def build_model(settings: Mapping[str, Any], data: TrainingData, loss: EnsembleLoss) -> Ensemble:
    """Return the untrained ensemble; the caller's random state is not changed."""
    seed, columns, method = settings.get("seed"), data.columns, settings["method"]
    outputs, options = outputs_for(loss, len(columns.class_names)), method_arguments(settings)
    if settings.get("architecture") == "table":
        assert columns.encoding is not None
        recipe = TableRecipe(
            method, settings["members"], tuple(settings["hidden"]), settings["dropout"]
        )
        X, _ = data.sample
        return build_table_ensemble(recipe, columns.encoding, X, outputs, seed=seed, **options)
    with nullcontext() if seed is None else torch.random.fork_rng([]):
        if seed is not None:
            torch.manual_seed(seed)
        network: nn.Module
        if "network" in settings:
            network = find_network(settings["network"])
        else:
            network = multilayer_perceptron(len(columns.input_names), settings["hidden"], outputs)
        return METHODS[method].build(network, settings["members"], **options)
