"""The tensors of an ensemble as they are written, and what must hold of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.saving.rebuilding import must_be_finite

SMALL = 2**30  # bytes; smaller files are read again to distinguish damage from another network


def tensors_of(
    model: Ensemble, wanted: Collection[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of an ensemble by name, tied ones once, and the names tied to them.

    Args:
        model: the ensemble.
        wanted: names of its tensors; by default all.

    Raises:
        ValueError: it has state other than tensors.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    tied = {}
    state = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if wanted is not None and name not in wanted:
            continue
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name} is a {type(value).__name__}, and only tensors can be saved; keep it in a "
                "buffer, or save it yourself"
            )
        if id(value) in names:
            tied[name] = names[id(value)]
            continue
        names[id(value)] = name
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, tied


def check_all_finite(model: Ensemble) -> None:
    """Check that all weights are finite, as loading requires.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    for name, value in model.state_dict(keep_vars=True).items():
        if must_be_finite(name, value) and not value.isfinite().all():
            found = float(value.detach()[~value.isfinite()][0])
            raise ValueError(
                f"the model's weights must be finite to be saved, got {found:g} in {name}: its "
                "training diverged; go back to a checkpoint, or train it with a lower lr"
            )


def damaged(path: Path, config: str) -> ValueError:
    """Return the error of a file of tensors that is not the one its description is of."""
    return ValueError(
        f"{path} is damaged, or not of the same save as {config} beside it; save it again"
    )
