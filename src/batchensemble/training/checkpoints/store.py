"""Checkpoints on disk: folders that are complete or absent.

A thread beside the training writes each under a temporary name, syncs and renames it. Tensors are
safetensors; everything else is JSON, which also holds a checksum of each file. Nothing is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from batchensemble.core.atomic_files import WriteError, open_regular, sync, write_file

CHECKPOINT_FORMAT = 4
READABLE = (
    3,
    CHECKPOINT_FORMAT,
)  # 3 kept no states of data loaders, and named callbacks by their classes
STATE = "state.json"
Tensors = Mapping[str, Tensor]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or the training cannot resume from it."""


class LostCheckpointError(CheckpointError, WriteError):
    """A checkpoint could not be written during a training; the earlier ones are complete."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint was changed after it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read from a folder.

    Attributes:
        folder: the folder.
        state: everything but tensors.
        tensors: the tensors, by file and name.
    """

    folder: Path
    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


class Checkpoints:
    """The checkpoints of one training, of which the newest are kept.

    Args:
        folder: the folder; it is made if needed.
        keep: number of checkpoints to keep, by default 2.

    Raises:
        CheckpointError: nothing can be written there.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {self.folder}: {error.strerror}; give another folder"
            ) from error

    def save(
        self,
        name: str,
        tensors: Mapping[str, Tensors],
        state: dict[str, Any],
        *,
        wait: bool = False,
    ) -> None:
        """Write a checkpoint of the current values, in a thread beside the training.

        Args:
            name: name of its folder, ``"step-..."``; the last ones in the order of names are kept.
            tensors: the tensors, by file and name.
            state: everything else, as JSON can hold it.
            wait: whether to return only when it is on disk; by default not.

        Raises:
            LostCheckpointError: this checkpoint, or the one before, could not be written. Those
                that are on disk stay.
        """
        self.wait()
        # The training changes the tensors in place.
        copies = {
            file: {key: _copied(value) for key, value in part.items()}
            for file, part in tensors.items()
        }
        self._written = self._thread.submit(self._write, name, copies, state)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            LostCheckpointError: it could not be written.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def close(self) -> None:
        """Wait until the last checkpoint is written, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def latest(self) -> Checkpoint | None:
        """Return the newest complete checkpoint; ``None`` if there is none.

        Raises:
            CheckpointError: the newest one is of another version, or all are damaged.

        Warns:
            UserWarning: a newer one is damaged.
        """
        damage = []
        for folder in reversed(self.folders()):
            try:
                found = read_checkpoint(folder)
            except DamagedCheckpointError as error:
                damage.append(str(error))
                continue
            for each in damage:
                warnings.warn(f"{each}; resuming from the one before", stacklevel=3)
            return found
        if damage:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is complete: {damage[0]}; restore one, or give "
                "another folder to start from scratch"
            )
        return None

    def folders(self) -> list[Path]:
        """Return the folders of the checkpoints, oldest first."""
        return sorted(each for each in self.folder.glob("step-*") if each.is_dir())

    def _write(self, name: str, tensors: Mapping[str, Tensors], state: dict[str, Any]) -> None:
        target, part = self.folder / name, self.folder / f".{name}.part"
        try:
            for leftover in self.folder.glob(".*.part"):
                shutil.rmtree(leftover, ignore_errors=True)
            part.mkdir()
            sums = {}
            for file, values in tensors.items():
                content = save(dict(values))
                write_file(part / f"{file}.safetensors", content)
                sums[f"{file}.safetensors"] = hashlib.sha256(content).hexdigest()
            whole = {"format": CHECKPOINT_FORMAT, "state": state}
            text = json.dumps({**whole, "sha256": {**sums, STATE: _sum_of(whole)}})
            write_file(part / STATE, text.encode())
            _replace(part, target)
            for old in self.folders()[: -self.keep]:
                shutil.rmtree(old)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise LostCheckpointError(
                f"the checkpoint {target} could not be written: {error.strerror or error}; the "
                "earlier ones are complete: free some space, and resume=True resumes from the last"
            ) from error


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DamagedCheckpointError: it was changed after it was written.
        CheckpointError: it was written by another version.
    """
    folder = Path(folder)
    try:
        with open_regular(folder / STATE) as state:
            found = json.loads(state.read().decode("utf-8"))
        sums = dict(found.pop("sha256"))
        if sums.pop(STATE) != _sum_of(found):
            raise DamagedCheckpointError(f"the checkpoint {folder} is damaged: {STATE} was changed")
        if found["format"] not in READABLE:
            formats = " and ".join(map(str, READABLE))
            raise CheckpointError(
                f"the checkpoint {folder} is of format {found['format']}, and this version of "
                f"batchensemble reads formats {formats}; resume with the version that wrote it"
            )
        for file, expected in sums.items():
            if Path(file).name != file:
                raise DamagedCheckpointError(f"the checkpoint {folder} names files elsewhere")
            if _sum_of_file(folder / file) != expected:
                raise DamagedCheckpointError(
                    f"the checkpoint {folder} is damaged: {file} was changed"
                )
        tensors = {Path(file).stem: load_file(folder / file) for file in sums}
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError
    ) as error:  # fmt: skip
        raise DamagedCheckpointError(f"the checkpoint {folder} is damaged: {error}") from error
    return Checkpoint(folder, found["state"], tensors)


def _copied(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _sum_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _sum_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _replace(part: Path, target: Path) -> None:
    """Move a written folder to its place, and sync the move."""
    sync(part)
    old = target.with_name(f".{target.name}.old.part")
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    sync(target.parent)
