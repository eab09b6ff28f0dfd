"""The state of a training as tensors and JSON, and a training restored to it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.dtensor import as_held, whole_on_first
from batchensemble.core.random_state import random_states
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.checkpoints.callback_states import callbacks_by_name, match_stored
from batchensemble.training.checkpoints.store import Checkpoint, CheckpointError
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.history import History

COUNTS = ("epoch", "step", "step_of_epoch", "seconds", "epoch_rows", "epoch_calls")


def snapshot(run: TrainingState) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the state of a run: tensors by file, and everything else as JSON can hold it."""
    states, numbers = random_states(next(run.model.parameters()).device)
    tensors = {"model": dict(run.model.state_dict()), "random": states}
    if run.epoch_rows:
        weight = torch.as_tensor(run.epoch_weight, dtype=torch.float64)
        tensors["losses"] = {"sum": run.epoch_losses, "last": run.losses, "weight": weight}
    held = {name: each.state_dict() for name, each in _with_state(run).items()}
    data = None
    if run.data_state is not None:
        data = run.data_state.state(midway=run.step_of_epoch > 0)
    parts = {}
    for name, values in {**held, "data": data}.items():
        found: dict[str, Tensor] = {}
        parts[name] = split_tensors(values, found)
        if found:
            tensors[name] = found
    data = parts.pop("data")
    state = {
        "about": description(run),
        "epochs": run.epochs,
        **{name: getattr(run, name) for name in COUNTS},
        "history": run.history.to_dict(),
        "random": numbers,
        "data": data,
        "parts": parts,
        "optional": [
            name
            for name, each in _with_state(run).items()
            if isinstance(each, Callback) and each.optional_state
        ],
    }
    return tensors, state


def gather_snapshot(
    tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], strategy: Strategy
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the state of all processes: each one's random states, or everything that differs.

    Sharded tensors are made whole, so that any number of processes can resume.

    Args:
        tensors: those of :func:`snapshot`.
        state: that of :func:`snapshot`.
        strategy: how processes share the training; a single process has nothing to gather.
    """
    if not strategy.shared:
        return tensors, state
    tensors = {
        file: {name: whole_on_first(each) for name, each in part.items()}
        for file, part in tensors.items()
    }
    own = tensors if strategy.separate_weights else {"random": tensors["random"]}
    numbers = state if strategy.separate_weights else {"random": state["random"]}
    found = strategy.processes.collect((own, numbers))
    others = {
        f"{name} of {rank}": values
        for rank, (part, _) in enumerate(found[1:], 1)
        for name, values in part.items()
    }
    states = [numbers for _, numbers in found[1:]]
    return {**tensors, **others}, {**state, "others": states, "apart": strategy.separate_weights}


def for_process(found: Checkpoint, strategy: Strategy) -> Checkpoint:
    """Return what this process resumes from; without random states if fewer processes wrote it.

    Raises:
        CheckpointError: the checkpoint needs the number of processes that wrote it.
    """
    state, rank = dict(found.state), strategy.processes.rank
    others, apart_then = state.pop("others", []), state.pop("apart", False)
    then = len(others) + 1 if apart_then else 1
    now = strategy.processes.count if strategy.separate_weights else 1
    if now != then:
        raise CheckpointError(
            f"the checkpoint {found.folder} is of members on {_number(then)}, and here they are on "
            f"{_number(now)}; resume with the same strategy= and number of processes"
        )
    tensors = {name: each for name, each in found.tensors.items() if " of " not in name}
    if 0 < rank <= len(others):
        of_rank = f" of {rank}"
        for name, values in found.tensors.items():
            if name.endswith(of_rank):
                tensors[name.removesuffix(of_rank)] = values
        state.update(others[rank - 1])
    elif rank:
        state["random"] = None
    return Checkpoint(found.folder, state, tensors)


def check_same(run: TrainingState, found: Checkpoint) -> None:
    """Raise ``CheckpointError``, saying what differs, for a checkpoint of another training."""
    now = description(run)
    for what, value in found.state["about"].items():
        if now.get(what) != value:
            raise CheckpointError(
                f"the checkpoint {found.folder} is of another training: its {what} is {value}, "
                f"and here it is {now.get(what)}; give another folder, or what it was trained with"
            )


def match_states(run: TrainingState, found: Checkpoint) -> dict[str, str]:
    """Return the stored name of each callback's state, by the callback's name in the run.

    Raises:
        CheckpointError: a state that changes the weights is missing or unused.
    """
    stored = {name: each for name, each in found.state["parts"].items() if name != "optimizer"}
    try:
        return match_stored(run.callbacks, stored, found.state.get("optional"))
    except ValueError as error:
        raise CheckpointError(f"the checkpoint {found.folder} cannot be used: {error}") from error


def restore_run(run: TrainingState, found: Checkpoint, names: dict[str, str]) -> None:
    """Restore a run to the state in which a checkpoint was written.

    Args:
        run: a run before its first step.
        found: the checkpoint, as :func:`for_process` returns it.
        names: those of :func:`match_states`.

    Raises:
        CheckpointError: the data are drawn in another way.

    Warns:
        UserWarning: the number of epochs changed after the learning rate had begun to fall.
    """
    state, tensors = found.state, found.tensors
    now_held = run.model.state_dict()
    run.model.load_state_dict(
        {name: as_held(value, now_held[name]) for name, value in tensors["model"].items()}
    )
    for name, part in _with_state(run).items():
        before = name if part is run.updater else names.get(name)
        if before is not None:  # otherwise the callback is new
            part.load_state_dict(join_tensors(state["parts"][before], tensors.get(before, {})))
    if run.data_state is not None:
        try:
            run.data_state.load(join_tensors(state.get("data"), tensors.get("data", {})))
        except ValueError as error:
            raise CheckpointError(
                f"the checkpoint {found.folder} is of other data: {error}; give the data that it "
                "was trained with, or another folder"
            ) from error
    run.resumed = True
    for name in COUNTS:
        setattr(run, name, state[name])
    history = History.from_dict(state["history"])
    if history.standardised and not run.history.standardised:  # by an earlier version
        history.convert(run.unit)
    run.history.continue_from(history)
    if "losses" in tensors:
        device = next(run.model.parameters()).device
        run.epoch_losses = tensors["losses"]["sum"].to(device)
        run.losses = tensors["losses"]["last"].to(device)
        run.last_loss = run.losses.mean()
        # Earlier versions stored no weight: each batch counted by its number of rows.
        weight = tensors["losses"].get("weight", torch.tensor(float(run.epoch_rows)))
        run.epoch_weight = weight.to(device) if weight.dim() else weight.item()
    run.restored_random = tensors["random"], state["random"]
    warn_of_other_rates(run, state["epochs"])


def warn_of_other_rates(run: TrainingState, epochs: int) -> None:
    """Warn if past steps had other learning rates than in a training of the new length.

    Args:
        run: the run, restored from the checkpoint.
        epochs: number of epochs of the training that wrote the checkpoint.
    """
    schedule = run.updater.schedule
    if epochs == run.epochs or schedule is None or not schedule.steps:
        return
    then = replace(schedule, steps=schedule.steps // run.epochs * epochs)
    if any(then.at(step) != schedule.at(step) for step in range(run.step)):
        warnings.warn(
            f"the checkpoint is of a training of {epochs} epochs, whose learning rate had begun to "
            f"fall, and here there are {run.epochs}: from now on it follows {run.epochs} epochs, "
            f"but the result is not that of {run.epochs} epochs from the start; that needs "
            "schedule='constant' and cooldown=0 in both",
            stacklevel=7,
        )


def description(run: TrainingState) -> dict[str, Any]:
    """Return what has to be the same for a run to resume from a checkpoint."""
    shapes = [(name, list(each.shape)) for name, each in run.model.state_dict().items()]
    return {
        "method": type(run.model).__name__,
        "number of members": run.model.members,
        "network (a checksum of the names and shapes of its weights)": _short(shapes),
        "data": run.batches.describe(),
        **run.settings,
    }


def split_tensors(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Return nested values as JSON can hold them; tensors are put into ``tensors`` by their path.

    Example:
        >>> import torch
        >>> split_tensors({0: (1, torch.zeros(2))}, found := {})
        {'dict': [[0, [1, {'tensor': '0.1'}]]]}
        >>> list(found)
        ['0.1']
    """
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        inner = f"{path}." if path else ""
        return {
            "dict": [
                [key, split_tensors(each, tensors, f"{inner}{key}")] for key, each in value.items()
            ]
        }
    if isinstance(value, (list, tuple)):
        return [split_tensors(each, tensors, f"{path}.{index}") for index, each in enumerate(value)]
    return value


def join_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo :func:`split_tensors`; tuples come back as lists."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: join_tensors(each, tensors) for key, each in value["dict"]}
    return [join_tensors(each, tensors) for each in value] if isinstance(value, list) else value


def _with_state(run: TrainingState) -> dict[str, Any]:
    """Return what has a state in this process, by its stored name."""
    named = callbacks_by_name(run.callbacks).items()
    return {"optimizer": run.updater, **{name: each for name, each in named if run.runs_here(each)}}


def _number(processes: int) -> str:
    return f"{processes} processes" if processes > 1 else "one process"


def _short(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
