"""Interrupted runs: checkpoints of a training, signals that end it, and how it goes on."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from batchensemble.agreement import warn_of_other_rates
from batchensemble.callback_states import keyed, matched
from batchensemble.callbacks import Callback
from batchensemble.checkpoints import Checkpoint, CheckpointError, Checkpoints
from batchensemble.checks import whole_number
from batchensemble.history import History
from batchensemble.randomness import random_states
from batchensemble.sharding import as_held, whole_on_first
from batchensemble.sharing import Sharing

if TYPE_CHECKING:
    from batchensemble.run import Run

ENDING = {signal.SIGTERM: 143, signal.SIGINT: 130}
COUNTS = ("epoch", "step", "step_of_epoch", "seconds", "epoch_rows", "epoch_calls")


class Keeping(Callback):
    """Writes checkpoints, and reads the last one of a training that was interrupted.

    SIGTERM and SIGINT let the step end; then a checkpoint is written and ``SystemExit`` raised with
    143 or 130.

    Args:
        folder: of the checkpoints.
        every: steps between two; by default they are written at the end of each epoch.
        keep: how many of the last stay.
        resume: go on from the newest; without one the training starts afresh.
        sharing: among processes, of which the first one reads and writes.
    """

    every_process = True

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        keep: int = 2,
        resume: bool = False,
        sharing: Sharing,
    ) -> None:
        self.every = every if every is None else whole_number("checkpoint_every", every)
        self.folder, keep = Path(folder), whole_number("keep", keep)
        self.resume, self.sharing, self.processes = resume, sharing, sharing.processes
        self.checkpoints: Checkpoints | None = None
        self.processes.on_first(lambda: self._open(keep))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of signals for a while, then give them back; wait for what is being written."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, self._note) for number in ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.checkpoints is not None:
                self.checkpoints.close()

    def on_step(self, run: Run) -> None:
        """Write a checkpoint every so many steps, or when the training is to end."""
        if self.sharing.agreed:
            self.save(run, wait=True)
            raise SystemExit(ENDING[signal.Signals(self.sharing.agreed)])
        if self.every is not None and run.step % self.every == 0:
            self.save(run)

    def on_epoch(self, run: Run) -> None:
        """Write a checkpoint at the end of an epoch."""
        if self.every is None or run.over:
            self.save(run)

    def save(self, run: Run, *, wait: bool = False) -> None:
        """Write a checkpoint of the run as it stands."""
        name, of_all = f"step-{run.step:09d}", gathered(*snapshot(run), self.sharing)
        checkpoints = self.checkpoints
        if checkpoints is not None:
            checkpoints.save(name, *of_all)
        if wait:
            self.processes.on_first(self._wait)

    def restore(self, run: Run) -> None:
        """Go on from the newest checkpoint, if there is one, before any callback is told.

        Raises:
            CheckpointError: it is of another network, number of members, data or setting; or there
                is one, and this training is not to go on with it.
            ValueError: the key of a callback is no name.
        """
        keyed(run.callbacks)
        if not self.resume:
            self.processes.on_first(self._refuse)
            return
        found = self.processes.from_first(self._latest)
        if found is not None:
            own = self._same_on_all(run, found)
            names = self.processes.from_first(lambda: names_of_states(run, own))
            go_on(run, own, names)
            if own.state["random"] is None:  # of no process that wrote it
                run.restored_random = None
                self.sharing.own_randomness(run.settings["seed"], run.step)

    def _same_on_all(self, run: Run, found: Checkpoint) -> Checkpoint:
        """Return what this process goes on from; where one cannot, none does."""
        error = None
        try:
            found = part_of(found, self.sharing)
            check_same(run, found)
        except CheckpointError as refused:
            error = refused
        for each in self.processes.all(error):
            if each is not None:
                raise each
        return found

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.sharing.note(number)

    def _open(self, keep: int) -> None:
        self.checkpoints = Checkpoints(self.folder, keep)

    def _wait(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def _latest(self) -> Checkpoint | None:
        return None if self.checkpoints is None else self.checkpoints.latest()

    def _refuse(self) -> None:
        if self.checkpoints is not None and self.checkpoints.folders():
            raise CheckpointError(
                f"{self.folder} holds checkpoints of a training already; give resume=True to go on "
                "with it, or another folder"
            )


def snapshot(run: Run) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return all that a run goes on from: tensors by file, and the rest as JSON can hold it."""
    states, numbers = random_states(next(run.model.parameters()).device)
    tensors = {"model": dict(run.model.state_dict()), "random": states}
    if run.epoch_rows:
        weight = torch.as_tensor(run.epoch_weight, dtype=torch.float64)
        tensors["losses"] = {"sum": run.epoch_losses, "last": run.losses, "weight": weight}
    held = {name: each.state_dict() for name, each in _with_state(run).items()}
    data = run.data_state and run.data_state.state(midway=run.step_of_epoch > 0)
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
        "history": run.history.as_dict(),
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
    tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], sharing: Sharing
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


def part_of(found: Checkpoint, sharing: Sharing) -> Checkpoint:
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


def check_same(run: Run, found: Checkpoint) -> None:
    """Raise ``CheckpointError`` for one of another training; the sentence says what differs."""
    now = about(run)
    for what, value in found.state["about"].items():
        if now.get(what) != value:
            raise CheckpointError(
                f"the checkpoint {found.folder} is of another training: its {what} is {value}, "
                f"and here it is {now.get(what)}; give another folder, or what it was trained with"
            )


def names_of_states(run: Run, found: Checkpoint) -> dict[str, str]:
    """Return under which name a checkpoint has the state of each callback of a run.

    Raises:
        CheckpointError: one is missing, or left over, without which other weights would come out.
    """
    stored = {name: each for name, each in found.state["parts"].items() if name != "optimizer"}
    try:
        return matched(run.callbacks, stored, found.state.get("optional"))
    except ValueError as error:
        raise CheckpointError(f"the checkpoint {found.folder} cannot be used: {error}") from error


def go_on(run: Run, found: Checkpoint, names: dict[str, str]) -> None:
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
    history = History.from_dict(state["history"])
    vars(run.history).update(vars(history))
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


def about(run: Run) -> dict[str, Any]:
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
        inner = path and f"{path}."
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


def _with_state(run: Run) -> dict[str, Any]:
    """Return what has a state in this process, by a name that stays."""
    named = keyed(run.callbacks).items()
    return {"optimizer": run.updater, **{name: each for name, each in named if run.tells(each)}}


def _number(processes: int) -> str:
    return f"{processes} processes" if processes > 1 else "one process"


def _short(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
