"""What ``fit`` prepares of its arguments: the data, what a step minimises, and who is told."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.amp import GradScaler

from batchensemble.core.inputs import Inputs
from batchensemble.core.random_state import DataStream
from batchensemble.data.batches import (
    NO_OWN_TARGETS,
    PREDICTION_BATCH,
    Batches,
    Draw,
    LoaderBatches,
)
from batchensemble.data.sources import open_batches
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import place_of
from batchensemble.ensembles.conversion.unregistered import check_weights_registered
from batchensemble.losses import ClassLoss, Custom, EnsembleLoss, LossOn, with_balance
from batchensemble.losses.targets import Targets
from batchensemble.training.batch_sizes import check_smallest_batch
from batchensemble.training.callbacks.base import Callback
from batchensemble.training.callbacks.diagnostics import MemberDiagnostics
from batchensemble.training.callbacks.validation import EarlyStopping
from batchensemble.training.checks import (
    check_batch,
    check_data,
    check_held_out,
    check_order,
    check_targets_rounding,
    in_standard_units,
    warn_if_members_differ,
)
from batchensemble.training.clipping import MemberClipping
from batchensemble.training.distributed.strategies import Strategy
from batchensemble.training.objective import Objective, make_objective
from batchensemble.training.optim.schedules import Plateau
from batchensemble.training.precision import in_precision


@dataclass(frozen=True)
class TrainingInputs:
    """What a training goes by.

    Attributes:
        training: its batches.
        held_out: those that are scored, if any.
        loss: with what the data had to say for it: the weights of classes, the units of numbers.
        names: of the columns, and of the classes, where there are some.
    """

    training: Batches
    held_out: Batches | None
    loss: EnsembleLoss
    names: ColumnNames

    @property
    def steps(self) -> int | None:
        """Steps an epoch, or ``None`` where the data do not know."""
        return len(self.training) if self.training.has_length else None


def prepare_data(
    model: Ensemble,
    data: Any,
    validation: Any,
    loss: EnsembleLoss,
    batch_size: int,
    *,
    target: str | None,
    class_names: Sequence[Any],
    memory_limit: int,
    shuffle: bool,
    draw: Draw | None,
    stream: DataStream,
    standardise_targets: bool,
    per_member: bool,
) -> TrainingInputs:
    """Open the data of a training, and see that they go with the network and the loss.

    Args:
        model: that is trained.
        data: the training's, see :func:`batchensemble.fit`, as all that is not said here.
        validation: held-out data, or ``None``.
        loss: as it was asked for.
        batch_size: examples a step.
        target: the column or key of the targets.
        class_names: the order of classes that are text.
        memory_limit: bytes.
        shuffle: whether each epoch has a new order.
        draw: what the members see of a batch, where that differs.
        stream: the random state that the order is drawn from.
        standardise_targets: whether the loss is in standard units of the training's targets.
        per_member: whether targets are ``[examples, members, ...]``, each member's own.

    Raises:
        TypeError, ValueError: they do not go together.
    """
    if per_member and draw is not None:
        raise ValueError(NO_OWN_TARGETS)
    tables: dict[str, Any] = {
        "memory_limit": memory_limit,
        "read": loss.read,
        "numbers": not isinstance(loss, (ClassLoss, Custom)),
        "weighted": True,
        **place_of(model),
    }
    order: dict[str, Any] = {"shuffle": shuffle, "draw": draw, "stream": stream}
    names: dict[str, Any] = {"target": target, "class_names": class_names}
    known = ColumnNames.of(model)
    training = open_batches(
        data, batch_size, **names, **order, **tables, training=True, known=known
    )
    known = known.and_of(training.feature_names, training.target_names, training.class_names)
    of_images = isinstance(data, (str, Path)) and isinstance(training, LoaderBatches)
    if of_images or not isinstance(training, LoaderBatches):  # of a dataset numbers are the order
        cure = "names to the folders that sort" if of_images else "class_names="
        given = () if of_images and training.class_names != tuple(class_names) else class_names
        check_order(loss, training.class_names, given, cure)
    loss = with_balance(loss, training)
    if standardise_targets:
        loss = in_standard_units(loss, model, training, per_member=per_member)
    held_out = None
    if validation is not None:
        named = None if isinstance(validation, (tuple, list)) else target
        names = {"target": named, "class_names": class_names or training.class_names}
        held_out = open_batches(validation, PREDICTION_BATCH, **names, **tables, known=known)
        check_held_out(model, loss, held_out)
    check_data(model, loss, training, per_member=per_member)
    check_targets_rounding(loss, training, place_of(model)["dtype"])
    return TrainingInputs(training, held_out, loss, known)


def prepare_objective(
    model: Ensemble,
    data: TrainingInputs,
    loss_on: LossOn,
    sharing: Strategy,
    *,
    split: bool,
    per_member: bool,
    micro_batch: int | None,
    clip: float | None,
    precision: str,
    scaler: GradScaler | None,
) -> Objective:
    """Return what a step minimises; the training's batches are arranged for it from now on.

    Args:
        model: that is trained.
        data: what it goes by.
        loss_on: what the loss is of.
        sharing: among processes.
        split: whether the members share a batch out among them.
        per_member: whether each member has targets of its own for the same examples.
        micro_batch: examples that go through the network at a time.
        clip: the largest norm of a member's gradient.
        precision: what the network computes in.
        scaler: of losses in half precision.
    """
    own = data.training.draw is not None
    shared = sharing if sharing.shared else None
    objective = make_objective(
        model,
        data.loss,
        loss_on,
        own=own,
        own_targets=per_member,
        micro_batch=micro_batch,
        sharing=shared,
    )
    data.training.arrange = objective.arrange
    return replace(
        objective,
        losses=in_precision(objective.losses, precision, place_of(model)["device"]),
        examples_a_row=sharing.whole.members if split and own else 1,
        clipping=None if clip is None else MemberClipping(model.network, model.members, clip),
        scaler=scaler,
    )


def watchers(
    data: TrainingInputs,
    sharing: Strategy,
    *,
    every: int | None,
    stop_on: str,
    patience: int | None,
    plateau: Plateau | None,
) -> list[Callback]:
    """Return the callbacks that look at the training, and at the held-out data if there are any.

    Args:
        data: what it goes by.
        sharing: among processes.
        every: steps between two scorings.
        stop_on: the score that says which weights are best.
        patience: scorings without a better one after which the training ends.
        plateau: lets the learning rate fall by them.

    Raises:
        ValueError: there are no held-out data to go by.
    """
    shared = sharing if sharing.shared else None
    watching = MemberDiagnostics(data.held_out, shared)
    if data.held_out is not None:
        steering: dict[str, Any] = {"stop_on": stop_on, "patience": patience, "plateau": plateau}
        kept: dict[str, Any] = {"loss": data.loss, "sharing": shared}
        return [EarlyStopping(data.held_out, every=every, **steering, **kept), watching]
    if plateau or patience or every:
        raise ValueError(
            "validation is missing: schedule=Plateau(), patience= and evaluate_every= go by "
            "the scores of held-out data"
        )
    return [watching]


def admit(
    model: Ensemble, objective: Objective, training: Batches, inputs: Inputs, targets: Targets
) -> None:
    """Try the first batch before anything is trained.

    Args:
        model: that is trained.
        objective: what a step minimises.
        training: the batches of which this is the first.
        inputs: of the batch.
        targets: of the batch.

    Raises:
        ValueError: the network does not take the inputs, or the loss not the outputs.
    """
    loaded = isinstance(training, LoaderBatches)
    check_batch(model, objective, inputs, targets, loaded=loaded)
    if loaded:  # of others it was known without a batch
        check_smallest_batch(model, objective, training, inputs)
    if objective.sharing is not None and objective.sharing.in_pieces:
        model = objective.sharing.whole  # no member can be taken out of pieces
        inputs = inputs.to(place_of(model)["device"])
    elif not model.is_chain:
        few = inputs[:2]
        run = partial(model, few, per_member=objective.own_examples)
        for sentence in check_weights_registered(model, run):
            warnings.warn(sentence, stacklevel=6)
    warn_if_members_differ(model, inputs[:, 0] if objective.own_examples else inputs)
