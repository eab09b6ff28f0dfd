"""``learn``: tasks one after the other, each by a member of its own, and none is forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from batchensemble.data.batches import ArrayBatches
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble
from batchensemble.ensembles.tasks import TaskRecord
from batchensemble.metrics.scores import evaluate
from batchensemble.metrics.values import Scores
from batchensemble.training.callbacks.base import Callback
from batchensemble.training.chosen_members import ChosenMembers
from batchensemble.training.fit import train
from batchensemble.training.held_out import is_share
from batchensemble.training.history import History
from batchensemble.training.plan import TrainingPlan
from batchensemble.training.preparation import prepare
from batchensemble.training.task_records import task_record

SHOWN = ("accuracy", "nll", "rmse", "r2")  # scores in a printed table, if they are there


@dataclass(frozen=True)
class LearnedTask:
    """A task that a member has learnt.

    Attributes:
        member: number of the task, and of the member that learnt it.
        history: the training.
        scores: of this member on the task's validation data; ``None`` where these were a share of
            the rows, or not given.
        record: what the model remembers of the task.
    """

    member: int
    history: History
    scores: Scores | None
    record: TaskRecord


@dataclass(frozen=True)
class LearnedTasks:
    """The tasks that one call of :func:`learn` taught, in order.

    Attributes:
        tasks: one record for each.
    """

    tasks: tuple[LearnedTask, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[LearnedTask]:
        return iter(self.tasks)

    def __getitem__(self, index: int) -> LearnedTask:
        return self.tasks[index]

    def __str__(self) -> str:
        scores: list[Mapping[str, Any]] = [each.scores or {} for each in self.tasks]
        shown = [name for name in SHOWN if any(name in each for each in scores)]
        rows = [["task", "member", "trained", "loss", *(f"held-out {name}" for name in shown)]]
        for task, found in zip(self.tasks, scores, strict=True):
            values = [f"{found[name]:.4f}" if name in found else "-" for name in shown]
            number = str(task.member)
            trained = "all that is shared, and its own" if not task.member else "its own"
            rows.append([number, number, trained, f"{task.history.losses[-1]:.4f}", *values])
        return _aligned(rows)


def learn(
    model: Ensemble,
    tasks: Sequence[Any],
    *,
    validation: Any = None,
    callbacks: Sequence[Callback] = (),
    trackers: str | Sequence[str | Callback] = (),
    **options: Any,
) -> LearnedTasks:
    """Learn tasks one after the other, each by the next member, and forget none.

    The first task trains member 0 and the weights that all members share. Each later task trains
    what the next member owns (fast weights, biases, norms, and its head if ``independent=`` names
    it) on the shared weights as they are, and leaves all else bit for bit: what was learnt stays
    exactly as it was (lifelong learning of Wen et al. 2020, arXiv 2002.06715, section 4.2).
    Members are counted when the ensemble is built. A later call goes on with the next member, also
    after saving and loading. ``model.member(t)`` or ``model.select([t])`` then answers task ``t``,
    and ``model.infer_task`` tells which task unlabelled examples are of.

    Training all members by :func:`batchensemble.fit` afterwards overwrites the tasks.

    Args:
        model: an ensemble with a member for each task whose members can be separated, such as
            ``BatchEnsemble(network, members=10, independent=["head"])``.
        tasks: a list of data sets, each in a form that :func:`batchensemble.fit` takes. All have
            the inputs and outputs of the network; classes are numbered from 0 in each.
        validation: held-out data of each task, a list as long; or one share for all, as in ``0.2``.
            Data that are given score each task and test whether its inputs are its own.
        callbacks: your own callbacks, in the training of each task.
        trackers: as in :func:`batchensemble.fit`.
        options: all others of :func:`batchensemble.fit`, the same for each task: for others call
            ``learn`` again with the next tasks. Checkpoints are in a folder for each task.

    Returns:
        What each member learnt: its history, and its scores on the validation data.

    Raises:
        TypeError: an argument is of the wrong type, or :func:`batchensemble.fit` has no such
            option.
        ValueError: there are no tasks or fewer members left than tasks, or the data of a task do
            not fit the network; the message names the task. Nothing has been trained then.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from batchensemble import BatchEnsemble
        >>> x = torch.randn(64, 2)
        >>> tasks = [(x, (x[:, 0] > 0).long()), (x, (x[:, 1] > 0).long())]
        >>> model = BatchEnsemble(nn.Linear(2, 2), members=3)
        >>> [task.member for task in learn(model, tasks, epochs=2)]
        [0, 1]
        >>> len(model.tasks)
        2
    """
    check_ensemble(model)
    tasks = _checked(model, tasks)
    held_out = _held_out(validation, len(tasks))
    plan, start = _plan(options), len(model.tasks)
    _check_data(model, plan, tasks, held_out)
    learned: list[LearnedTask] = []
    at_hand: dict[int, Any] = {}
    for number, (data, held) in enumerate(zip(tasks, held_out, strict=True)):
        member = start + number
        own = replace(
            plan,
            members=(member,),
            label=f"{plan.label} task {number + 1} of {len(tasks)}",
            checkpoints=_folder(plan.checkpoints, member),
        )
        before = model.tasks
        history = train(
            own, model, data, held, shared=not member, callbacks=callbacks, trackers=trackers
        )
        given = None if held is None or is_share(held) else held
        at_hand[member] = data if given is None else given
        record = task_record(model, before, at_hand[member], plan, at_hand)
        record = replace(record, held_out=given is not None)
        model.tasks = (*before, record)
        scores = None
        if given is not None and model.loss is not None:
            scores = evaluate(
                model.select([member]), given, target=plan.target, memory_limit=plan.memory_limit
            )
        learned.append(LearnedTask(member, history, scores, record))
    return LearnedTasks(tuple(learned))


def _checked(model: Ensemble, tasks: Any) -> list[Any]:
    """Return the tasks as a list, of which the ensemble has enough members."""
    if not isinstance(tasks, (list, tuple)) or any(_is_array(each) for each in tasks):
        raise TypeError(
            "tasks must be a list of data sets, as in [(X1, y1), (X2, y2)], got "
            + ("one data set" if isinstance(tasks, (list, tuple)) else type(tasks).__name__)
        )
    left = model.members - len(model.tasks)
    if not tasks:
        raise ValueError("tasks must hold at least one data set, got none")
    if len(tasks) > left:
        raise ValueError(
            f"each task takes a member, got {len(tasks)} tasks and {left} members that have not "
            f"learnt one, of {model.members}; build the ensemble with more members="
        )
    return list(tasks)


def _is_array(task: Any) -> bool:
    return hasattr(task, "shape") and not hasattr(task, "columns")


def _held_out(validation: Any, count: int) -> list[Any]:
    """Return what is held out of each task."""
    if validation is None or is_share(validation):
        return [validation] * count
    if not isinstance(validation, (list, tuple)) or len(validation) != count:
        got = len(validation) if isinstance(validation, (list, tuple)) else validation
        raise ValueError(
            f"validation must be a list with a data set for each of the {count} tasks, or a share "
            f"such as 0.2, got {got}"
        )
    return list(validation)


def _plan(options: dict[str, Any]) -> TrainingPlan:
    """Return the options as a plan, which is labelled ``"learning"`` unless they say otherwise."""
    known = {each.name for each in fields(TrainingPlan)} - {"members"}
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"learn takes the options of fit, and it has no {unknown[0]!r} for a task")
    return TrainingPlan(**{"label": "learning", **options})


def _check_data(
    model: Ensemble, plan: TrainingPlan, tasks: Sequence[Any], held_out: Sequence[Any]
) -> None:
    """Raise an error that names the task whose data do not fit, before anything is trained."""
    chosen = ChosenMembers(model, [len(model.tasks)], plan, shared=True)
    trial = replace(plan, checkpoints=None, resume=False, compile=False, progress=False)
    for number, (data, held) in enumerate(zip(tasks, held_out, strict=True)):
        with _naming(number), prepare(trial, chosen.part, data, held) as run:
            if isinstance(run.batches, ArrayBatches) and run.check_first_batch is not None:
                run.check_first_batch(*next(iter(run.batches)))


@contextmanager
def _naming(number: int) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        error.args = (f"tasks[{number}]: {error}",)
        raise


def _folder(checkpoints: str | Path | None, member: int) -> Path | None:
    return None if checkpoints is None else Path(checkpoints) / f"task-{member}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
