"""Checks of functions that take an ensemble: that it is one, and accepts the inputs."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from batchensemble.core.inputs import Inputs, describe_example
from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.verification import check_numbers
from batchensemble.layers.modes import evaluating


class Place(TypedDict):
    """Device and floating-point type of a network's inputs."""

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


def check_inputs_fit(
    model: Ensemble, inputs: Inputs, *, per_member: bool = False, any_output: bool = False
) -> Any:
    """Return the outputs, or raise a ``ValueError`` that describes the examples.

    Args:
        model: the ensemble.
        inputs: some examples.
        per_member: whether each member has examples of its own.
        any_output: whether the network may return other things than a tensor.
    """
    try:
        with evaluating(model), torch.no_grad():
            outputs = model(inputs, per_member=per_member)
    except (RuntimeError, TypeError, ValueError) as error:
        example = describe_example(inputs, per_member=per_member)
        raise ValueError(
            f"the network does not take examples {example}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(outputs, Tensor) and not any_output:
        raise ValueError(
            "training and prediction need a tensor, or an output with logits from inputs given by "
            f"name, as {{'input_ids': ids}}; the network returns a {type(outputs).__name__}"
        )
    return outputs


def place_of(model: nn.Module) -> Place:
    """Return the device and the floating-point type that the network expects of its inputs."""
    first = next(model.parameters(), torch.empty(0))
    dtype = first.dtype if first.is_floating_point() else torch.get_default_dtype()
    return {"device": first.device, "dtype": dtype}
