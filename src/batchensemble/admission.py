"""What ``fit`` and ``predict`` check at the door, before anything has been trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from batchensemble.batches import NO_OWN_TARGETS, ArrayBatches, Batches
from batchensemble.ensembles import Ensemble
from batchensemble.inputs import Inputs, describe_example
from batchensemble.losses import (
    ClassLoss,
    Custom,
    EnsembleLoss,
    NumberLoss,
    Standardised,
    standardised,
)
from batchensemble.modes import evaluating
from batchensemble.rounding import OF_ONE_BATCH, check_targets_held
from batchensemble.streams import StreamBatches
from batchensemble.targets import Targets, parted
from batchensemble.verification import check_numbers

if TYPE_CHECKING:
    from batchensemble.objective import Objective


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


def check_trainable(model: Ensemble) -> None:
    """Raise ``ValueError`` for a model whose calibration training would make untrue."""
    if model.calibrator is not None:
        raise ValueError(
            "the model is calibrated, which training makes untrue; train model.uncalibrated(), and "
            "calibrate that again"
        )


def check_batch(
    model: Ensemble, objective: Objective, inputs: Inputs, targets: Targets, *, loaded: bool = False
) -> None:
    """Try one batch without training.

    Args:
        model: that is trained.
        objective: what a step minimises.
        inputs: of the batch.
        targets: of the batch.
        loaded: whether it is of a data loader, of which nothing was looked at before.

    Raises:
        ValueError: the network does not take the inputs, or the loss not the outputs.
    """
    outputs = check_inputs_fit(model, inputs, per_member=objective.own_examples)
    targets, _ = parted(targets)
    if loaded and _is_in_targets_units(objective.loss):
        dtype = place_of(model)["dtype"]
        check_targets_held(lambda: [targets], len(targets), dtype, share=OF_ONE_BATCH)
    try:
        if objective.arrange is None or targets.dim() > 1:
            own = objective.own_examples
            check_targets_fit(
                objective.loss, outputs.shape, targets[:, 0] if own else targets, drawn=own
            )
        with evaluating(model), torch.no_grad():
            losses = objective.by_member(objective.losses(inputs, targets))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"the loss does not take outputs of shape {list(outputs.shape)} with targets of "
            f"shape {list(targets.shape)}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(losses, Tensor) or losses.dim() != 2 or len(losses) != len(outputs):
        got = list(losses.shape) if isinstance(losses, Tensor) else losses
        raise ValueError(
            f"the loss must return [batch, members], for outputs {list(outputs.shape)} it gave "
            f"{got}; average over further axes and keep these two"
        )


def warn_if_members_differ(model: Ensemble, inputs: Inputs) -> None:
    """Warn where the ensemble does not compute what its members compute alone.

    A network may use its weights, or mix its rows, in ways that conversion cannot see; training
    would then train something else than the members that come out. Chains of torch's layers and
    networks that run as copies cannot.

    Args:
        model: any ensemble.
        inputs: some examples; two are tried.
    """
    if model.members == 1 or model.own_examples or model.is_plain:
        return
    try:
        model.verify(inputs[:2])
    except ValueError as error:
        warnings.warn(str(error), stacklevel=3)


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


def check_targets_fit(
    loss: EnsembleLoss, outputs_shape: Sequence[int], targets: Tensor, *, drawn: bool
) -> None:
    """Raise ``ValueError`` where targets do not go with outputs or with how examples are drawn.

    Args:
        loss: that takes them.
        outputs_shape: ``[batch, members, ...]``.
        targets: of any examples.
        drawn: whether each member sees examples of its own.
    """
    if isinstance(loss, Custom):
        return  # it may take anything, and check_batch tries it
    loss.check(outputs_shape, targets)
    if drawn and loss.one_a_member(outputs_shape, targets):
        raise ValueError(NO_OWN_TARGETS)


def check_data(model: Ensemble, loss: EnsembleLoss, batches: Batches) -> None:
    """Raise ``ValueError`` where targets of arrays or files do not go with the outputs."""
    if isinstance(batches, ArrayBatches) and not isinstance(loss, Custom):
        shape = check_inputs_fit(model, batches.inputs[:1]).shape
        check_targets_fit(loss, shape, batches.targets, drawn=batches.draw is not None)
    elif isinstance(batches, StreamBatches) and isinstance(loss, ClassLoss):
        check_classes(model, loss, batches)


def check_targets_rounding(loss: EnsembleLoss, batches: Batches, dtype: torch.dtype) -> None:
    """Raise ``ValueError`` where targets in their own units are lost in the network's type.

    A file is gone through for that where its first rows show it. Of a data loader, which may have
    no second time, :func:`check_batch` looks at the first batch.
    """
    if not _is_in_targets_units(loss):
        return
    if isinstance(batches, ArrayBatches):
        check_targets_held(lambda: [batches.targets], len(batches.targets), dtype)
    elif isinstance(batches, StreamBatches):
        check_targets_held(batches.all_targets, batches.files.rows, dtype)


def _is_in_targets_units(loss: EnsembleLoss) -> bool:
    """Return whether a loss takes numbers as they are."""
    return isinstance(loss, NumberLoss) and not isinstance(loss, Standardised)


def check_classes(model: Ensemble, loss: ClassLoss, batches: StreamBatches) -> None:
    """Raise ``ValueError`` where a class of a streamed file is beyond the network's outputs.

    Numbers are gone through once, so that a last row does not end a training after an hour; text
    was when the file was opened.
    """
    example = torch.zeros(1, len(batches.files.names), dtype=batches.dtype, device=batches.device)
    shape = check_inputs_fit(model, example).shape
    enough = len(shape) > 2 and loss.classes(shape[2]) >= len(batches.class_names)
    if not batches.class_names or not enough or len(shape) != 3:
        check_targets_fit(loss, shape, torch.tensor(list(batches.class_counts)), drawn=False)


def check_held_out(model: Ensemble, loss: EnsembleLoss, batches: Batches) -> None:
    """Raise ``ValueError`` where held-out arrays or files cannot be scored after an epoch."""
    if isinstance(batches, StreamBatches) and isinstance(loss, ClassLoss):
        check_classes(model, loss, batches)
    if not isinstance(batches, ArrayBatches):
        return
    shape = check_inputs_fit(model, batches.inputs[:1]).shape
    if isinstance(loss, Custom):
        return
    targets = batches.targets
    other_axes = isinstance(loss, ClassLoss) and targets.dim() != max(1, len(shape) - 2)
    if not other_axes:
        loss.check(shape, targets)
    if other_axes or loss.one_a_member(shape, targets):
        further = shape[3:] if isinstance(loss, ClassLoss) else ["..."]
        entry = ", ".join(["examples", *map(str, further)])
        raise ValueError(
            f"y of the validation data must have the shape [{entry}], since the members are "
            f"scored together, got {list(targets.shape)}"
        )


def in_standard_units(loss: EnsembleLoss, model: Ensemble, batches: Batches) -> Standardised:
    """Return a loss in standard units of the targets of training data, which are gone through once.

    Raises:
        ValueError: the loss is not of numbers, or the data cannot be gone through twice.
    """
    dtype = place_of(model)["dtype"]
    if isinstance(batches, ArrayBatches):
        shape = check_inputs_fit(model, batches.inputs[:1]).shape
        return standardised(loss, shape, [batches.targets], dtype)
    if not batches.has_length:
        raise ValueError(
            "standardise_targets goes through the data once before training, and these have no "
            "length, so that it may be their only time; give loss=Standardised(GaussianNLL(), "
            "mean, deviation) of batchensemble.losses with numbers that you know"
        )
    with torch.random.fork_rng([]):
        inputs, _ = next(iter(batches))
        shape = check_inputs_fit(model, inputs, per_member=batches.draw is not None).shape
        return standardised(loss, shape, (parted(targets)[0] for _, targets in batches), dtype)


def place_of(model: nn.Module) -> Place:
    """Return where the network's inputs belong: device and floating-point type."""
    first = next(model.parameters(), torch.empty(0))
    dtype = first.dtype if first.is_floating_point() else torch.get_default_dtype()
    return {"device": first.device, "dtype": dtype}
