"""Datasets of Hugging Face as tensors, and examples as a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import default_collate

from batchensemble.core.rounding import LARGEST_BATCH_ERROR, check_targets_held
from batchensemble.data.tables.columns import library_of

Collate = Callable[[list[Any]], Any]

FIRST_EXAMPLES = 1000  # examples of an iterable dataset that are checked
AS_A_DATASET = "an IterableDataset of Hugging Face rounds to it: give a Dataset"


def is_hugging_face(data: Any) -> bool:
    """Return whether data come from the package ``datasets``, which is not imported for that."""
    return library_of(data) == "datasets"


def as_tensors(data: Any, target: str | None, *, in_order: bool) -> tuple[Any, Collate]:
    """Return a dataset that yields tensors, and its collate function.

    Floating-point columns become float32; targets of float64 keep their precision.

    Args:
        data: one split of a dataset.
        target: the column of targets.
        in_order: whether the dataset is iterable; its targets can only become float32.

    Raises:
        ValueError: float32 cannot hold the targets of an iterable dataset.
    """
    if not _is_float64(data, target):
        return data.with_format("torch"), collated
    if in_order:
        first = [
            torch.tensor(each[target], dtype=torch.float64) for each in islice(data, FIRST_EXAMPLES)
        ]
        if first:
            rows = torch.stack([each.flatten() for each in first])
            check_targets_held(
                lambda: [rows],
                len(rows),
                torch.float32,
                cure=AS_A_DATASET,
                largest_error=LARGEST_BATCH_ERROR,
            )
        return data.with_format("torch"), collated
    others = [name for name in data.column_names if name != target]
    found = data.with_format("torch", columns=others, output_all_columns=True)
    return found, partial(collated, exact=target)


def collated(examples: list[Any], exact: str | None = None) -> Any:
    """Return a batch of examples; the column ``exact`` becomes float64."""
    if exact is not None:
        made = (torch.tensor(each[exact], dtype=torch.float64) for each in examples)
        examples = [{**each, exact: own} for each, own in zip(examples, made, strict=True)]
    try:
        return default_collate(examples)
    except RuntimeError as error:
        if "equal size" not in str(error):
            raise
        raise ValueError(
            "the examples of a batch must have the same shape; crop or pad them in the dataset, or "
            f"give a DataLoader with a collate_fn that does ({str(error).splitlines()[0]})"
        ) from error


def _is_float64(dataset: Any, target: str | None) -> bool:
    """Return whether a column holds float64, or lists of it."""
    features = getattr(dataset, "features", None)
    kind: Any = features.get(target) if isinstance(features, Mapping) else None
    while hasattr(kind, "feature"):
        kind = kind.feature
    return getattr(kind, "dtype", None) == "float64"
