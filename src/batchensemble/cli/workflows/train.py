"""A training as a folder: settings in; model, history and checkpoints out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchensemble.cli.workflows.scored_rows import of_part, scores_of
from batchensemble.cli.workflows.settings import SETTINGS, of_fit, of_method, write
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
from batchensemble.training.distributed.processes import is_first
from batchensemble.training.fit import fit
from batchensemble.training.history import History

CHECKPOINTS = "checkpoints"


def train(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
) -> tuple[Ensemble, History, Mapping[str, Any]]:
    """Train what the settings say, and leave all of it in a folder.

    ``run.toml`` and ``history.jsonl`` are there from the first step and ``checkpoints/`` from the
    first epoch; ``model.safetensors``, ``config.json`` and ``history.json`` at the end. What is
    refused before leaves nothing.

    Args:
        settings: from :func:`batchensemble.cli.workflows.settings.resolve`.
        folder: made if it is not there, when the training starts.
        resume: go on from the newest checkpoint in the folder; without one start afresh.
        progress: show a bar; by default only in a terminal.

    Returns:
        The ensemble, its history, and its scores on the held-out examples, those of
        :func:`batchensemble.evaluate`.

    Raises:
        ValueError: a setting or the data cannot be used, or the folder holds another training.
        CheckpointError: a checkpoint is of another training.
        WriteError: a file cannot be written on the way; the checkpoints before are whole.
        SystemExit: the training was told to end, with 143 or 130; it can be gone on with.
    """
    checkpoints = folder / CHECKPOINTS
    if not resume and any(checkpoints.glob("step-*")):
        raise ValueError(
            f"{folder} holds a training already; give --resume to go on with it, or another folder "
            "with --out"
        )
    arguments = of_fit(settings)
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
    model = build(settings, data, loss)
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
            callbacks=[_SettingsFile(folder / SETTINGS, settings), lines, *trackers],
            progress=progress,
            **arguments,
        )
    model.eval()  # a loaded model is mostly asked
    data.columns.tell(model)
    if is_first():  # of several processes, which all have the same
        text = json.dumps(history.to_dict(), indent=1)
        write_whole(folder / "history.json", text.encode() + b"\n")
        save(
            model,
            folder,
            network=settings.get("network"),
            data=data.describe(settings["loss"]),
        )
    held_out = of_part(model, data.held_out, data.name, data.columns, limit)
    return model, history, scores_of(model, held_out)


class _SettingsFile(Callback):
    """Writes the settings of a training when it starts, that is, when it was not refused."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.content = path, write(settings).encode()

    def on_start(self, run: TrainingState) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.content)


def build(settings: Mapping[str, Any], data: TrainingData, loss: EnsembleLoss) -> Ensemble:
    """Return the untrained ensemble; the caller's random state stays as it is."""
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
        return method.build(network, settings["members"], **of_method(settings))
