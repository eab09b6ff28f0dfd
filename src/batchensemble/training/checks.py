"""What is checked before a training: model, data, loss, and the first batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.core.rounding import LARGEST_BATCH_ERROR, check_targets_held
from batchensemble.data.batches import ArrayBatches, Batches, LoaderBatches
from batchensemble.data.streaming import StreamBatches
from batchensemble.data.tables.class_labels import are_ordered
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_inputs_fit, place_of
from batchensemble.ensembles.conversion.unregistered import check_weights_registered
from batchensemble.layers.modes import evaluating
from batchensemble.losses import (
    ClassLoss,
    Custom,
    EnsembleLoss,
    NumberLoss,
    Ordinal,
    Standardised,
    standardised,
)
from batchensemble.losses.targets import Targets, parted
from batchensemble.training.batch_sizes import check_smallest_batch

if TYPE_CHECKING:
    from batchensemble.training.objective import Objective


def check_trainable(model: Ensemble) -> None:
    """Raise ``ValueError`` for a calibrated model: training would invalidate its calibration."""
    if model.calibrator is not None:
        raise ValueError(
            "the model is calibrated, and training would invalidate that; train "
            "model.uncalibrated(), and calibrate it again"
        )


def check_batch(
    model: Ensemble, objective: Objective, inputs: Inputs, targets: Targets, *, loaded: bool = False
) -> None:
    """Try one batch without training.

    Args:
        model: the ensemble.
        objective: what a step minimises.
        inputs: the inputs of the batch.
        targets: its targets.
        loaded: whether it comes from a data loader, whose data were not checked before.

    Raises:
        ValueError: the network does not take the inputs, or the loss not the outputs.
    """
    custom = isinstance(objective.loss, Custom)
    outputs = check_inputs_fit(model, inputs, per_member=objective.own_examples, any_output=custom)
    targets, _ = parted(targets)
    if loaded and _is_in_targets_units(objective.loss):
        dtype = place_of(model)["dtype"]
        check_targets_held(
            lambda: [targets], len(targets), dtype, largest_error=LARGEST_BATCH_ERROR
        )
    try:
        if not custom:
            shown = targets[:, 0] if objective.own_examples else targets
            own, drawn = objective.own_targets, objective.own_examples
            check_targets_fit(objective.loss, outputs.shape, shown, per_member=own, drawn=drawn)
        with evaluating(model), torch.no_grad():
            # A loss of the user's own may write into its targets, too.
            losses = objective.by_member(objective.losses(inputs, targets.clone()))
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
    if isinstance(objective.loss, Custom) and not objective.own_examples:
        together = losses.shape[1] == 1
        seen = outputs.mean(1, keepdim=True) if together else outputs
        check_own_loss(objective.loss, seen, targets)


def check_first_batch(
    model: Ensemble, objective: Objective, training: Batches, inputs: Inputs, targets: Targets
) -> None:
    """Try the first batch before the first step.

    Args:
        model: the ensemble.
        objective: what a step minimises.
        training: the batches of the training data.
        inputs: the inputs of the first batch.
        targets: its targets.

    Raises:
        ValueError: the network does not take the inputs, or the loss not the outputs.
    """
    loaded = isinstance(training, LoaderBatches)
    check_batch(model, objective, inputs, targets, loaded=loaded)
    if loaded:  # other data were checked without a batch
        check_smallest_batch(model, objective, training, inputs)
    if objective.strategy is not None and objective.strategy.sharded:
        model = objective.strategy.whole  # no member can be taken out of pieces
        inputs = inputs.to(place_of(model)["device"])
    elif not model.is_chain:
        few = inputs[:2]
        run = partial(model, few, per_member=objective.own_examples)
        for sentence in check_weights_registered(model, run):
            warnings.warn(sentence, stacklevel=6)
    warn_if_members_differ(model, inputs[:, 0] if objective.own_examples else inputs)


def check_own_loss(loss: Custom, outputs: Tensor, targets: Tensor) -> None:
    """Raise ``ValueError`` if a user's function compares each output with all targets.

    Outputs ``[batch, members, 1]`` less targets ``[batch]`` are ``[batch, members, batch]``, whose
    mean has the right shape and teaches every example the mean target.

    Args:
        loss: the function.
        outputs: the outputs for one batch, ``[batch, members, ...]``.
        targets: the targets of the batch.
    """
    if len(outputs) == outputs.shape[1]:  # rows and members must not be taken for each other
        more = torch.arange(len(outputs) + 1) % len(outputs)
        outputs, targets = outputs[more], targets[more]

    def losses(y: Tensor) -> Tensor:
        return loss(outputs, y.clone())  # it may write into its targets

    with torch.no_grad(), torch.random.fork_rng([]):
        try:
            found = losses(targets)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"the loss does not take outputs of shape {list(outputs.shape)} with targets of "
                f"shape {list(targets.shape)}, only as many examples as there are members: "
                f"{str(error).splitlines()[0]}"
            ) from error
        moved, same = targets.roll(1, 0), targets[:1].expand_as(targets)
        if torch.equal(targets, moved) or not torch.allclose(losses(moved), found):
            return
        if torch.allclose(losses(same), found):  # it does not look at targets at all
            return
    raise ValueError(
        "the loss must compare each example with its own target, and this one is the same when "
        f"targets change places: outputs of shape {list(outputs.shape)} and targets of shape "
        f"{list(targets.shape)} are broadcast against each other; give targets the axes of the "
        "outputs, as in targets.view(-1, 1, 1)"
    )


def warn_if_members_differ(model: Ensemble, inputs: Inputs) -> None:
    """Warn if the ensemble does not compute what its members compute alone.

    A network may use its weights in ways that conversion cannot see; the members taken out of the
    ensemble would then differ from what was trained. Chains of torch's layers and networks that run
    as copies cannot. Networks that mix their rows are handled at the first call, unless
    ``run="together"`` says otherwise.

    Args:
        model: any ensemble.
        inputs: some examples, of which two are used.
    """
    if model.members == 1 or model.own_examples or model.is_plain or model.run == "together":
        return
    try:
        model.verify(inputs[:2])
    except ValueError as error:
        warnings.warn(str(error), stacklevel=3)


def check_targets_fit(
    loss: EnsembleLoss,
    outputs_shape: Sequence[int],
    targets: Tensor,
    *,
    per_member: bool = False,
    drawn: bool = False,
) -> None:
    """Raise ``ValueError`` if targets do not fit outputs.

    Args:
        loss: the loss.
        outputs_shape: the shape of the outputs, ``[batch, members, ...]``.
        targets: targets of any number of examples.
        per_member: whether they are ``[examples, members, ...]``, with targets for each member.
        drawn: whether each member sees its own examples, which excludes ``per_member``.
    """
    if per_member:
        loss.check(outputs_shape, targets, per_member=True)
        return
    try:
        loss.check(outputs_shape, targets)
    except ValueError as error:
        if not _fit_members(loss, outputs_shape, targets):
            raise
        advice = "per_member_targets=True"
        if drawn:
            advice += " and batches='shared'"
        raise ValueError(f"{error}; if each member has its own targets, give {advice}") from None


def _fit_members(loss: EnsembleLoss, outputs_shape: Sequence[int], targets: Tensor) -> bool:
    """Return whether the targets would fit if each member had its own."""
    try:
        loss.check(outputs_shape, targets, per_member=True)
    except (TypeError, ValueError):  # a loss of the user's own need not know such targets
        return False
    return True


def check_some_count(counts: Tensor | None, weights: Tensor | None, what: str) -> None:
    """Raise ``ValueError`` where all targets are ignored, not known, or of weight 0.

    Args:
        counts: how much the targets of each example count, as their loss says; ``None``: the same.
        weights: the user's weights of the examples; ``None`` without.
        what: the name of the targets, for the sentence.
    """
    if counts is None:
        return
    if weights is not None:
        counts = counts * weights
    if not counts.any():
        raise ValueError(
            f"{what} must hold at least one target that counts, got none: all are ignored, not "
            "known (NaN), or of weight 0"
        )


def check_data(
    model: Ensemble, loss: EnsembleLoss, batches: Batches, *, per_member: bool = False
) -> None:
    """Raise ``ValueError`` where targets of arrays or files do not go with the outputs."""
    if isinstance(batches, ArrayBatches) and not isinstance(loss, Custom):
        shape = check_inputs_fit(model, batches.inputs[:1]).shape
        drawn = batches.draw is not None
        check_targets_fit(loss, shape, batches.targets, per_member=per_member, drawn=drawn)
        check_some_count(loss.weights(batches.targets), batches.weights, "y")
    elif isinstance(batches, StreamBatches) and isinstance(loss, ClassLoss):
        check_streamed_classes(model, loss, batches)


def check_targets_rounding(loss: EnsembleLoss, batches: Batches, dtype: torch.dtype) -> None:
    """Raise ``ValueError`` if rounding to the network's type changes targets too much.

    A file is read as a whole if its first rows show the problem. A data loader may be readable only
    once, so :func:`check_batch` checks its first batch.
    """
    if not _is_in_targets_units(loss):
        return
    if isinstance(batches, ArrayBatches):
        check_targets_held(lambda: [batches.targets], len(batches.targets), dtype)
    elif isinstance(batches, StreamBatches):
        check_targets_held(batches.all_targets, batches.files.rows, dtype)


def _is_in_targets_units(loss: EnsembleLoss) -> bool:
    """Return whether a loss takes numbers that are not standardised."""
    return isinstance(loss, NumberLoss) and not isinstance(loss, Standardised)


def check_order(
    loss: EnsembleLoss, found: Sequence[str], given: Sequence[Any], advice: str
) -> None:
    """Raise ``ValueError`` if an ordinal loss has words as classes, without an order.

    Args:
        loss: the loss of the training.
        found: the classes in the order of their numbers; empty if the targets are numbers. It is
            ``ordered`` if the data declare the order.
        given: the order that the user gave; empty without.
        advice: how to give the order, for the error.
    """
    if isinstance(loss, Ordinal) and not given and not are_ordered(found):
        raise ValueError(
            "the ordinal loss needs the order of the classes, and words have none but the "
            f"alphabet's, got {', '.join(found)}; give {advice} from the lowest to the highest"
        )


def check_streamed_classes(model: Ensemble, loss: ClassLoss, batches: StreamBatches) -> None:
    """Raise ``ValueError`` if a class of a streamed file is beyond the network's outputs.

    Class numbers are read once before training, so that the last row does not end it after an hour;
    text was read when the file was opened.
    """
    example = torch.zeros(1, batches.files.width, dtype=batches.dtype, device=batches.device)
    shape = check_inputs_fit(model, example).shape
    enough = len(shape) > 2 and loss.classes(shape[2]) >= len(batches.class_names)
    if not batches.class_names or not enough or len(shape) != 3:
        check_targets_fit(loss, shape, torch.tensor(list(batches.class_counts)))


def check_validation(model: Ensemble, loss: EnsembleLoss, batches: Batches) -> None:
    """Raise ``ValueError`` if held-out arrays or files cannot be scored."""
    if isinstance(batches, StreamBatches) and isinstance(loss, ClassLoss):
        check_streamed_classes(model, loss, batches)
    if not isinstance(batches, ArrayBatches):
        return
    shape = check_inputs_fit(model, batches.inputs[:1]).shape
    if isinstance(loss, Custom):
        return
    try:
        loss.check(shape, batches.targets)
    except ValueError as error:
        raise ValueError(
            f"the validation data, whose targets are the same for all members, do not fit: {error}"
        ) from None
    counts = loss.counts(batches.targets)
    check_some_count(counts, batches.weights, "y of the validation data")


def in_standard_units(
    loss: EnsembleLoss, model: Ensemble, batches: Batches, *, per_member: bool = False
) -> Standardised:
    """Return a loss of standardised targets; the training data are read once for that.

    Args:
        loss: a loss of numbers.
        model: the ensemble.
        batches: the batches of the training data.
        per_member: whether targets are ``[examples, members, ...]``, with targets for each member.

    Raises:
        ValueError: the loss is not of numbers, or the data may be readable only once.
    """
    dtype = place_of(model)["dtype"]
    if isinstance(batches, ArrayBatches):
        shape = check_inputs_fit(model, batches.inputs[:1]).shape
        return standardised(loss, shape, [batches.targets], dtype, per_member=per_member)
    if not batches.has_length:
        raise ValueError(
            "standardise_targets reads the data once before training, and these have no length, "
            "so they may be readable only once; give loss=Standardised(GaussianNLL(), "
            "mean, deviation) of batchensemble.losses with numbers that you know"
        )
    with torch.random.fork_rng([]):
        inputs, _ = next(iter(batches))
        drawn = batches.draw is not None
        shape = check_inputs_fit(model, inputs, per_member=drawn).shape
        targets = (parted(each)[0] for _, each in batches)
        return standardised(loss, shape, targets, dtype, per_member=per_member or drawn)
