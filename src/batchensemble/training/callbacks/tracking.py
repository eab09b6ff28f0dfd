"""Tracking a training: lines of JSON, TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.core.atomic_files import writing
from batchensemble.training.callbacks.base import Callback, TrainingState

LOG_EVERY = 50
TRACKERS = ("tensorboard", "wandb", "mlflow")


class JsonLines(Callback):
    """Writes a line of JSON every ``every`` steps, after each evaluation, and after each epoch.

    A line is ``{"event": "step", "step": 50, "epoch": 0, ...}``; other events are ``"evaluation"``,
    ``"epoch"`` and ``"end"``.
    A training that resumes from a checkpoint removes the lines written after it, so that no step is
    there twice.

    Args:
        path: path of the file; its folder is made if needed.
        every: number of steps between two lines of losses, by default 50.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> import batchensemble as be
        >>> path = Path(tempfile.mkdtemp()) / "history.jsonl"
        >>> data = torch.randn(64, 2), torch.randint(2, (64,))
        >>> model = be.BatchEnsemble(nn.Linear(2, 2), members=3)
        >>> lines = be.JsonLines(path, every=1)
        >>> _ = be.fit(model, data, epochs=1, batch_size=32, callbacks=[lines])
        >>> [json.loads(line)["event"] for line in path.read_text().splitlines()]
        ['step', 'step', 'epoch', 'end']
    """

    key, earlier_keys, optional_state = "json lines", ("JsonLines",), True

    def __init__(self, path: str | Path, *, every: int = LOG_EVERY) -> None:
        self.path, self.every = Path(path), whole_number("every", every)
        self._bytes = 0

    def on_start(self, run: TrainingState) -> None:
        """Remove what was written after the checkpoint."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            self._bytes = min(self._bytes, file.tell())
            file.truncate(self._bytes)

    def on_step(self, run: TrainingState) -> None:
        """Write the members' losses."""
        if run.step % self.every == 0:
            self._write(run, "step", lr=run.lr, losses=_by_member(run))

    def on_evaluation(self, run: TrainingState) -> None:
        """Write the held-out scores."""
        self._write(run, "evaluation", **run.history.evaluations[-1])

    def on_epoch(self, run: TrainingState) -> None:
        """Write the epoch's losses and diagnostics."""
        self._write(run, "epoch", **_epoch(run))

    def on_end(self, run: TrainingState) -> None:
        """Write that the training has ended."""
        self._write(run, "end", stopped=run.history.stopped)

    def state_dict(self) -> dict[str, Any]:
        """Return the length of the file in bytes."""
        return {"bytes": self._bytes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self._bytes = state.get("bytes", 0)

    def _write(self, run: TrainingState, event: str, **values: Any) -> None:
        values = {"event": event, "step": run.step, "epoch": run.epoch, **values}
        line = json.dumps(values).encode() + b"\n"
        with writing(self.path), self.path.open("ab") as file:
            file.write(line)
        self._bytes += len(line)


class Tracking(Callback):
    """Logs a training to a tracker, through accelerate.

    Steps log ``loss/member_0`` and so on, ``loss/mean`` and ``lr``; evaluations ``held_out/nll``
    and the other scores; epochs ``diagnostics/...``.

    A training that resumes from a checkpoint hides the points written after it from TensorBoard, so
    that no step is there twice. Weights & Biases and MLflow start another run, unless ``options``
    name the one to resume, in which such points stay.

    Args:
        name: ``"tensorboard"``, ``"wandb"`` or ``"mlflow"``; its package must be installed.
        folder: local folder to write to.
        project: name of the run; TensorBoard makes a folder of that name.
        every: number of steps between two records of losses, by default 50.
        config: settings to store with the run: numbers, text and booleans.
        options: further options of the tracker, by name.

    Raises:
        ValueError: the tracker is unknown.
        ImportError: it is not installed.
    """

    def __init__(
        self,
        name: str,
        folder: str | Path = "runs",
        *,
        project: str = "",
        every: int = LOG_EVERY,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.name = one_of("trackers", name, TRACKERS)
        self.folder, self.project = Path(folder), project or name
        self.every = whole_number("every", every)
        self.config, self.options = config or {}, options
        self._kind = _tracker(name)
        self._tracker: Any = None

    def on_start(self, run: TrainingState) -> None:
        """Start the tracker."""
        place = {"logging_dir": self.folder} if self._kind.requires_logging_directory else {}
        options = dict(self.options)
        if self.name == "tensorboard" and run.step:
            # Within an epoch the scores of its end may have been written after the checkpoint, and
            # with its very step: so that step's points are hidden too, and written again.
            options.setdefault("purge_step", run.step + (run.step_of_epoch == 0))
        self._tracker = self._kind(self.project, **place, **options)
        if hasattr(self._tracker, "start"):
            self._tracker.start()
        if self.config:
            self._tracker.store_init_configuration(self.config)
        if options.get("purge_step") == run.step:
            self.on_step(run)
            if run.history.evaluations and run.history.evaluations[-1]["step"] == run.step:
                self.on_evaluation(run)

    def on_step(self, run: TrainingState) -> None:
        """Log the members' losses and the learning rate."""
        if run.step % self.every == 0:
            losses = _by_member(run)
            values = {f"loss/member_{index}": loss for index, loss in enumerate(losses)}
            values["loss/mean"] = sum(losses) / len(losses)
            self._log(run, {**values, "lr": run.lr})

    def on_evaluation(self, run: TrainingState) -> None:
        """Log the held-out scores."""
        scores = run.history.evaluations[-1]
        self._log(run, dict(_numbers("held_out", _without_place(scores))))

    def on_epoch(self, run: TrainingState) -> None:
        """Log the diagnostics."""
        values = _epoch(run)
        self._log(run, dict(_numbers("diagnostics", values.get("diagnostics", {}))))

    def on_end(self, run: TrainingState) -> None:
        """Let the tracker finish."""
        self._tracker.finish()

    def _log(self, run: TrainingState, values: dict[str, float]) -> None:
        if values:
            self._tracker.log(values, step=run.step)


def make_trackers(trackers: str | Sequence[str | Callback], label: str) -> list[Callback]:
    """Return the callbacks of trackers given by name or as they are."""
    given = [trackers] if isinstance(trackers, str) else list(trackers)
    return [Tracking(each, project=label) if isinstance(each, str) else each for each in given]


def _tracker(name: str) -> Any:
    from importlib.util import find_spec

    try:
        from accelerate.state import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    except ImportError:
        raise ImportError(
            f"the tracker {name} needs accelerate; pip install 'batchensemble[tracking]'"
        ) from None
    if find_spec(name) is None and not (name == "tensorboard" and find_spec("tensorboardX")):
        raise ImportError(f"the tracker {name} is not installed; pip install {name}")
    PartialState()  # accelerate's trackers ask it which process they are in
    return LOGGER_TYPE_TO_CLASS[name]


def _by_member(run: TrainingState) -> list[float]:
    return [run.unit(each) for each in run.losses.detach().double().mean(0).tolist()]


def _epoch(run: TrainingState) -> dict[str, Any]:
    history = run.history
    values: dict[str, Any] = {
        "loss": history.losses[-1],
        "member_losses": history.member_losses[-1],
        "seconds": history.seconds[-1],
    }
    if len(history.diagnostics) == history.epochs:
        values["diagnostics"] = history.diagnostics[-1]
    return values


def _without_place(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if name not in ("step", "epoch")}


def _numbers(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested values by their path."""
    for name, value in values.items():
        if isinstance(value, (list, tuple)):
            yield from _numbers(f"{prefix}/{name}", {str(i): each for i, each in enumerate(value)})
        elif isinstance(value, dict):
            yield from _numbers(f"{prefix}/{name}", value)
        elif isinstance(value, (int, float)):
            yield f"{prefix}/{name}", float(value)
