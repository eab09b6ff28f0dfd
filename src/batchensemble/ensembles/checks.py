"""What every function that takes an ensemble checks first: that it is one, and takes the inputs."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from batchensemble.core.inputs import Inputs, describe_example
from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.verification import check_numbers
from batchensemble.layers.modes import evaluating


class Place(TypedDict):
    """Where a network's inputs belong."""

    device: torch.device
    dtype: torch.dtype


def check_ensemble(model: Any) -> None:
    """Raise ``TypeError`` for anything but an ensemble, ``ValueError`` for one on ``meta``."""
    if not isinstance(model, Ensemble):
        raise TypeError(
            f"model must be an ensemble such as batchensemble.BatchEnsemble(network, members=4) or "
            f"batchensemble.Single(network), got {type(model).__name__}"
        )
    check_numbers(model)


def check_inputs_fit(model: Ensemble, inputs: Inputs, *, per_member: bool = False) -> Tensor:
    """Return the outputs, or raise a ``ValueError`` that says which examples do not fit."""
    try:
        with evaluating(model), torch.no_grad():
            return model(inputs, per_member=per_member)
    except (RuntimeError, TypeError, ValueError) as error:
        example = describe_example(inputs, per_member=per_member)
        raise ValueError(
            f"the network does not take examples {example}: {str(error).splitlines()[0]}"
        ) from error


def place_of(model: nn.Module) -> Place:
    """Return where the network's inputs belong: device and floating-point type."""
    first = next(model.parameters(), torch.empty(0))
    dtype = first.dtype if first.is_floating_point() else torch.get_default_dtype()
    return {"device": first.device, "dtype": dtype}
