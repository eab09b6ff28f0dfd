"""What a training goes on from: its state as tensors and JSON, and a training brought to it."""

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
from batchensemble.training.checkpoints.callback_states import keyed, matched
from batchensemble.training.checkpoints.store import Checkpoint, CheckpointError
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.history import History
from batchensemble.training.optim.schedules import Schedule

COUNTS = ("epoch", "step", "step_of_epoch", "seconds", "epoch_rows", "epoch_calls")


def snapshot(run: TrainingState) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return all that a run goes on from: tensors by file, and the rest as JSON can hold it."""
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
        parts[name] = apart(values, found)
        if found:
            tensors[name] = found
    data = parts.pop("data")
    state = {
        "about": about(run),
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


def gathered(
    tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], sharing: Strategy
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return what all processes go on from, each of its own: random states, or everything.

    What is in pieces is brought together, so that any number of processes can go on.

    Args:
        tensors: of :func:`snapshot`.
        state: of :func:`snapshot`.
        sharing: among processes; one alone has nothing to gather.
    """
    if not sharing.shared:
        return tensors, state
    tensors = {
        file: {name: whole_on_first(each) for name, each in part.items()}
        for file, part in tensors.items()
    }
    own = tensors if sharing.each_its_own else {"random": tensors["random"]}
    numbers = state if sharing.each_its_own else {"random": state["random"]}
    found = sharing.processes.all((own, numbers))
    others = {
        f"{name} of {rank}": values
        for rank, (part, _) in enumerate(found[1:], 1)
        for name, values in part.items()
    }
    states = [numbers for _, numbers in found[1:]]
    return {**tensors, **others}, {**state, "others": states, "apart": sharing.each_its_own}


def part_of(found: Checkpoint, sharing: Strategy) -> Checkpoint:
    """Return what this process goes on from; without random states where there was no such process.

    Raises:
        CheckpointError: as many processes as wrote it are needed.
    """
    state, rank = dict(found.state), sharing.processes.rank
    others, apart_then = state.pop("others", []), state.pop("apart", False)
    then = len(others) + 1 if apart_then else 1
    now = sharing.processes.count if sharing.each_its_own else 1
    if now != then:
        raise CheckpointError(
            f"the checkpoint {found.folder} is of members spread over {_number(then)}, and here "
            f"they are on {_number(now)}; go on with strategy= and processes as it was written"
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
    """Raise ``CheckpointError`` for one of another training; the sentence says what differs."""
    now = about(run)
    for what, value in found.state["about"].items():
        if now.get(what) != value:
            raise CheckpointError(
                f"the checkpoint {found.folder} is of another training: its {what} is {value}, "
                f"and here it is {now.get(what)}; give another folder, or what it was trained with"
            )


def names_of_states(run: TrainingState, found: Checkpoint) -> dict[str, str]:
    """Return under which name a checkpoint has the state of each callback of a run.

    Raises:
        CheckpointError: one is missing, or left over, without which other weights would come out.
    """
    stored = {name: each for name, each in found.state["parts"].items() if name != "optimizer"}
    try:
        return matched(run.callbacks, stored, found.state.get("optional"))
    except ValueError as error:
        raise CheckpointError(f"the checkpoint {found.folder} cannot be used: {error}") from error


def go_on(run: TrainingState, found: Checkpoint, names: dict[str, str]) -> None:
    """Bring a run to where a checkpoint was written.

    Args:
        run: that has just been made.
        found: what this process goes on from.
        names: of :func:`names_of_states`.

    Raises:
        CheckpointError: the data are drawn in another way.

    Warns:
        UserWarning: more epochs follow than were meant to, and the learning rate had begun to fall.
    """
    state, tensors = found.state, found.tensors
    now_held = run.model.state_dict()
    run.model.load_state_dict(
        {name: as_held(value, now_held[name]) for name, value in tensors["model"].items()}
    )
    for name, part in _with_state(run).items():
        before = name if part is run.updater else names.get(name)
        if before is not None:  # else a callback is new
            part.load_state_dict(together(state["parts"][before], tensors.get(before, {})))
    if run.data_state is not None:
        try:
            run.data_state.load(together(state.get("data"), tensors.get("data", {})))
        except ValueError as error:
            raise CheckpointError(
                f"the checkpoint {found.folder} is of other data: {error}; give the data that it "
                "was trained with, or another folder"
            ) from error
    run.resumed = True
    for name in COUNTS:
        setattr(run, name, state[name])
    run.history.continue_from(History.from_dict(state["history"]))
    if "losses" in tensors:
        device = next(run.model.parameters()).device
        run.epoch_losses = tensors["losses"]["sum"].to(device)
        run.losses = tensors["losses"]["last"].to(device)
        run.last_loss = run.losses.mean()
        # One of an earlier version has none: there each batch counted as much as it had rows.
        weight = tensors["losses"].get("weight", torch.tensor(float(run.epoch_rows)))
        run.epoch_weight = weight.to(device) if weight.dim() else weight.item()
    run.restored_random = tensors["random"], state["random"]
    warn_of_other_rates(run, state["epochs"])


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
            stacklevel=7,
        )


def about(run: TrainingState) -> dict[str, Any]:
    """Return what has to be the same for a run to go on from a checkpoint."""
    shapes = [(name, list(each.shape)) for name, each in run.model.state_dict().items()]
    return {
        "method": type(run.model).__name__,
        "number of members": run.model.members,
        "network (a checksum of the names and shapes of its weights)": _short(shapes),
        "data": run.batches.describe(),
        **run.settings,
    }


def apart(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Return nested values as JSON can hold them; tensors go into ``tensors`` by their path.

    Example:
        >>> import torch
        >>> apart({0: (1, torch.zeros(2))}, found := {})
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
            "dict": [[key, apart(each, tensors, f"{inner}{key}")] for key, each in value.items()]
        }
    if isinstance(value, (list, tuple)):
        return [apart(each, tensors, f"{path}.{index}") for index, each in enumerate(value)]
    return value


def together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what :func:`apart` took apart; tuples come back as lists."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: together(each, tensors) for key, each in value["dict"]}
    return [together(each, tensors) for each in value] if isinstance(value, list) else value


def _with_state(run: TrainingState) -> dict[str, Any]:
    """Return what has a state in this process, by a name that stays."""
    named = keyed(run.callbacks).items()
    return {"optimizer": run.updater, **{name: each for name, each in named if run.runs_here(each)}}


def _number(processes: int) -> str:
    return f"{processes} processes" if processes > 1 else "one process"


def _short(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
