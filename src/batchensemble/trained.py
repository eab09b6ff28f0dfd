"""A training as a folder: settings in; model, history and checkpoints out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchensemble.callbacks import Callback
from batchensemble.configuration import of_fit, of_method, write
from batchensemble.data import Data, load
from batchensemble.disk import write_whole
from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.history import History
from batchensemble.inspection import find_network
from batchensemble.metrics import Scores, evaluate
from batchensemble.networks import multilayer_perceptron
from batchensemble.saving import save
from batchensemble.tracking import JsonLines, Tracking
from batchensemble.training import fit

CHECKPOINTS = "checkpoints"
SETTINGS = "run.toml"


def train(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
) -> tuple[Ensemble, History, Scores]:
    """Train what the settings say, and leave all of it in a folder.

    ``run.toml`` and ``history.jsonl`` are there from the start and ``checkpoints/`` from the first
    epoch; ``model.safetensors``, ``config.json`` and ``history.json`` at the end.

    Args:
        settings: from :func:`batchensemble.configuration.resolve`.
        folder: made if it is not there.
        resume: go on from the newest checkpoint in the folder; without one start afresh.
        progress: show a bar; by default only in a terminal.

    Returns:
        The ensemble, its history, and its scores on the held-out examples.

    Raises:
        ValueError: a setting or the data cannot be used, or the folder holds another training.
        CheckpointError: a checkpoint is of another training, or cannot be written.
        SystemExit: the training was told to end, with 143 or 130; it can be gone on with.
    """
    checkpoints = folder / CHECKPOINTS
    if not resume and any(checkpoints.glob("step-*")):
        raise ValueError(
            f"{folder} holds a training already; give --resume to go on with it, or another folder "
            "with --out"
        )
    data = load(settings["data"], settings.get("target"))
    model = build(settings, data)
    arguments = of_fit(settings)
    trackers = [Tracking(name, folder) for name in arguments.pop("trackers", ())]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SETTINGS, write(settings).encode())
    callbacks: Sequence[Callback] = [JsonLines(folder / "history.jsonl"), *trackers]
    history = fit(
        model,
        data.train,
        validation=data.held_out,
        checkpoints=checkpoints,
        resume=resume,
        callbacks=callbacks,
        progress=progress,
        **arguments,
    )
    text = json.dumps(history.as_dict(), indent=1)
    write_whole(folder / "history.json", text.encode() + b"\n")
    model.eval()  # a loaded model is mostly asked
    save(model, folder, network=settings.get("network"), data=data.describe())
    return model, history, evaluate(model, data.held_out)


def build(settings: Mapping[str, Any], data: Data) -> Ensemble:
    """Return the untrained ensemble; the caller's random state stays as it is."""
    seed = settings.get("seed")
    with nullcontext() if seed is None else torch.random.fork_rng([]):
        if seed is not None:
            torch.manual_seed(seed)
        network: nn.Module
        if "network" in settings:
            network = find_network(settings["network"])
        else:
            network = multilayer_perceptron(data.features, settings["hidden"], data.classes)
        kind: Any = METHODS[settings["method"]]
        members = () if settings["method"] == "single" else (settings["members"],)
        return kind(network, *members, **of_method(settings))
