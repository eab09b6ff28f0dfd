"""The held-out data of a training: given by the user, or a share of the training's own rows."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch

from batchensemble.core.arguments import between
from batchensemble.data.batches import ArrayBatches, Batches
from batchensemble.data.sources import open_batches
from batchensemble.data.streaming import StreamBatches
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.data.tables.split import hold_out
from batchensemble.losses import ClassLoss, Custom, EnsembleLoss
from batchensemble.training.plan import TrainingPlan


def is_share(validation: Any) -> bool:
    """Return whether ``validation`` is a share of the training data, not data."""
    return isinstance(validation, Real)


def split_off(
    training: Batches, share: Any, loss: EnsembleLoss, seed: int | None
) -> tuple[ArrayBatches, ArrayBatches]:
    """Return the batches of the rows to train on, and those of the held-out ones.

    Args:
        training: the batches of all rows.
        share: of the rows that are held out.
        loss: the loss; classes keep their proportions.
        seed: of the draw; ``None`` draws it from torch's global state.

    Raises:
        TypeError: the share is not a number.
        ValueError: it is not above 0 and below 1, or rows of these data cannot be drawn.
    """
    share = between("validation, unless it is data,", share, 0, 1)
    if not isinstance(training, ArrayBatches):
        streamed = isinstance(training, StreamBatches)
        what = "files larger than memory_limit" if streamed else "datasets and data loaders"
        cure = (
            "give a file of held-out rows"
            if streamed
            else "give a part of the dataset (torch.utils.data.random_split)"
        )
        raise ValueError(
            f"validation={share} holds out a share of the rows of arrays and tables in memory, and "
            f"{what} cannot be divided; {cure} as validation="
        )
    targets = training.targets
    of_classes = isinstance(loss, (ClassLoss, Custom)) and targets.dim() == 1
    stratified = of_classes and not targets.is_floating_point()
    parts = hold_out(
        len(training.inputs),
        share,
        seed=int(torch.randint(2**31, ())) if seed is None else seed,
        classes=targets.cpu().numpy() if stratified else None,
    )
    train, held = (training.rows(torch.from_numpy(each).to(targets.device)) for each in parts)
    return train, held.for_scoring()


def open_held_out(
    validation: Any,
    plan: TrainingPlan,
    training: Batches,
    known: ColumnNames,
    tables: dict[str, Any],
) -> Batches:
    """Return the batches of the user's held-out data.

    Args:
        validation: data in a form that :func:`batchensemble.fit` takes.
        plan: the options.
        training: the batches of the training data, whose classes are theirs.
        known: the names of the columns.
        tables: how data are opened, as those of the training.

    Raises:
        TypeError, ValueError: the data are of an unknown kind or invalid.
    """
    named = None if isinstance(validation, (tuple, list)) else plan.target
    names: dict[str, Any] = {
        "target": named,
        "class_names": plan.class_names or training.class_names,
    }
    return open_batches(validation, None, **names, **tables, known=known)
