"""Training from settings into a folder with the model, its history and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchensemble.cli.workflows.scored_rows import held_out_rows, scores_of
from batchensemble.cli.workflows.settings import (
    SETTINGS_FILE,
    fit_arguments,
    method_arguments,
    write,
)
from batchensemble.core.atomic_files import leaving_nothing_empty, write_whole
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.data.tables.dialects import Dialect
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

CHECKPOINTS = "checkpoints"


def train_model(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
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
    arguments = fit_arguments(settings)
    loss = as_loss(arguments["loss"])
    limit = settings.get("memory_limit", MEMORY_LIMIT)
    data = open_data(
        settings["data"],
        settings.get("target"),
        loss=loss,
        validation=settings.get("validation"),
        memory_limit=limit,
        class_names=settings.get("classes", ()),
        dialect=Dialect.from_settings(settings),
    )
    check_order(loss, data.columns.class_names, settings.get("classes", ()), "--classes")
    model = build_model(settings, data, loss)
    trackers = [Tracking(name, folder) for name in arguments.pop("trackers", ())]
    lines = JsonLines(folder / "history.jsonl")
    with leaving_nothing_empty(checkpoints):
        history = fit(
            model,
            data.train,
            validation=data.held_out,
            memory_limit=limit,
            # Arrays hold class numbers already.
            class_names=settings.get("classes", ()) if isinstance(data.train, Files) else (),
            checkpoints=checkpoints,
            resume=resume,
            callbacks=[_SettingsFile(folder / SETTINGS_FILE, settings), lines, *trackers],
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


class _SettingsFile(Callback):
    """Writes the settings when the training starts, that is, when they are known to be valid."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.content = path, write(settings).encode()

    def on_start(self, run: TrainingState) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.content)


def build_model(settings: Mapping[str, Any], data: TrainingData, loss: EnsembleLoss) -> Ensemble:
    """Return the untrained ensemble; the caller's random state is not changed."""
    seed = settings.get("seed")
    with nullcontext() if seed is None else torch.random.fork_rng([]):
        if seed is not None:
            torch.manual_seed(seed)
        network: nn.Module
        if "network" in settings:
            network = find_network(settings["network"])
        else:
            columns = data.columns
            outputs = outputs_for(loss, len(columns.class_names))
            network = multilayer_perceptron(len(columns.feature_names), settings["hidden"], outputs)
        method = METHODS[settings["method"]]
        return method.build(network, settings["members"], **method_arguments(settings))
