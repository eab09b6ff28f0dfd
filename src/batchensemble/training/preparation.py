"""From a plan and data to a training that can begin: batches, objective, optimiser, callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.amp import GradScaler

from batchensemble.core.random_state import DataStream, seeded
from batchensemble.data.batches import NO_OWN_TARGETS, ArrayBatches, Batches, LoaderBatches
from batchensemble.data.position import DataState
from batchensemble.data.sources import open_batches
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble, place_of
from batchensemble.layers.modes import preserve_modes
from batchensemble.losses import ClassLoss, Custom, EnsembleLoss, with_balance
from batchensemble.losses.standardised import is_standardised
from batchensemble.training.batch_sizes import check_smallest_batch
from batchensemble.training.callbacks.base import Callback
from batchensemble.training.callbacks.compilation import CompiledLosses
from batchensemble.training.callbacks.diagnostics import MemberDiagnostics
from batchensemble.training.callbacks.first_process import FirstProcessCallbacks
from batchensemble.training.callbacks.progress import TrainingBar
from batchensemble.training.callbacks.time_budget import TimeBudget
from batchensemble.training.callbacks.tracking import make_trackers
from batchensemble.training.callbacks.validation import EarlyStopping
from batchensemble.training.callbacks.weight_averaging import WeightAveraging
from batchensemble.training.checkpoints.callback import CheckpointCallback
from batchensemble.training.checks import (
    check_data,
    check_first_batch,
    check_order,
    check_targets_rounding,
    check_trainable,
    check_validation,
    in_standard_units,
)
from batchensemble.training.clipping import MemberClipping
from batchensemble.training.distributed.strategies import choose_strategy
from batchensemble.training.distributed.strategy import Strategy
from batchensemble.training.gradient_checkpointing import checkpointed
from batchensemble.training.held_out import is_share, open_held_out, split_off
from batchensemble.training.history import History
from batchensemble.training.objective import Objective, make_objective
from batchensemble.training.optim.optimizers import optimiser
from batchensemble.training.optim.schedules import Schedule, default_cooldown
from batchensemble.training.plan import TrainingPlan
from batchensemble.training.precision import in_precision, loss_scaler
from batchensemble.training.run import TrainingRun
from batchensemble.training.sampling import make_draw


@dataclass(frozen=True)
class TrainingInputs:
    """The opened data of a training, and what follows from them.

    Attributes:
        training: the batches of the training data.
        validation: the batches of the held-out data; ``None`` without.
        loss: the loss, with the class weights and the units of targets that the data decide.
        names: the names of columns and classes, if the data have some.
    """

    training: Batches
    validation: Batches | None
    loss: EnsembleLoss
    names: ColumnNames

    @property
    def steps(self) -> int | None:
        """Number of steps of an epoch; ``None`` if the data do not know their length."""
        return len(self.training) if self.training.has_length else None

    def tell(self, models: Sequence[Ensemble]) -> None:
        """Store in ensembles what their outputs mean, and what they were trained on."""
        for each in models:
            # The meaning of the outputs is not known for a user's function.
            each.loss = None if isinstance(self.loss, Custom) else self.loss
            each.trained_on = self.training.fingerprint
            each.tasks = ()  # which training all members overwrites
            self.names.tell(each)


@contextmanager
def prepare(
    plan: TrainingPlan,
    model: Ensemble,
    data: Any,
    validation: Any = None,
    *,
    callbacks: Sequence[Callback] = (),
    trackers: str | Sequence[str | Callback] = (),
    steps: int | None = None,
) -> Iterator[TrainingRun]:
    """Yield a training that is ready for its first step, or for the next one after a checkpoint.

    On leaving, also by an error, the random state, the modes of the modules and the handlers of
    signals are the caller's again.

    Args:
        plan: the options.
        model: the ensemble, which is trained in place.
        data: the training data in a form that :func:`batchensemble.fit` takes.
        validation: held-out data in the same forms, or the share of the rows to hold out; ``None``
            without.
        callbacks: the user's own.
        trackers: names of trackers, or trackers.
        steps: number of steps, if it is not that of whole epochs.

    Raises:
        TypeError, ValueError, CheckpointError: as :func:`batchensemble.fit` does.
    """
    check_ensemble(model)
    check_trainable(model)
    strategy = choose_strategy(model, plan.strategy, place_of(model)["device"], plan.loss_on)
    strategy.check(plan)
    model = strategy.model
    device = place_of(model)["device"]
    scaler = loss_scaler(plan.precision, device)
    groups = model.parameter_groups(
        lr=plan.lr, weight_decay=plan.weight_decay, fast_lr_multiplier=plan.fast_lr_multiplier
    )
    with ExitStack() as stack:
        stack.enter_context(strategy.quiet())
        seed = strategy.seed(plan.seed)
        stack.enter_context(seeded(seed, device))
        stack.enter_context(preserve_modes(model))
        stack.enter_context(checkpointed(model.network, plan.gradient_checkpointing))
        stream = DataStream(seed)
        inputs = prepare_data(plan, strategy, data, validation, stream)
        objective = prepare_objective(plan, strategy, inputs, scaler)
        check_smallest_batch(model, objective, inputs.training)
        schedule = prepare_schedule(plan, inputs, steps)
        show = plan.progress if strategy.processes.writes else False
        bar = stack.enter_context(TrainingBar(plan.label, schedule.steps, show=show))
        compiled = None
        if plan.compile:
            compiled = CompiledLosses(objective.losses, plan.compile, device)
            objective = replace(objective, losses=compiled)
        made = prepare_callbacks(plan, strategy, inputs, bar, compiled, callbacks, trackers)
        state, checkpointing = prepare_checkpoints(plan, strategy, inputs, stream)
        if checkpointing is not None:
            stack.enter_context(checkpointing.listening())
            made.append(checkpointing)
        scheduler = plan.schedule if callable(plan.schedule) else None
        updater = stack.enter_context(
            optimiser(
                plan.optimizer, groups, schedule, scaler=scaler, scheduler=scheduler,
                sharded=strategy.sharded,
            )
        )  # fmt: skip
        strategy.begin(inputs.training, seed)
        settings = plan.resume_settings(inputs.loss, cooldown=schedule.cooldown, seed=seed)
        history = History(
            class_names=list(inputs.training.class_names),
            standardised=is_standardised(inputs.loss),
            plan=plan.to_dict(),
        )
        run = TrainingRun(
            model, objective, updater, inputs.training, stream, plan.epochs, history, made,
            settings, strategy.processes,
        )  # fmt: skip
        run.bar, run.data_state = bar, state
        run.check_first_batch = partial(check_first_batch, model, objective, inputs.training)
        if checkpointing is not None:
            checkpointing.restore(run)
        inputs.tell((strategy.whole, model))
        stack.enter_context(strategy.finishing(history))
        yield run


def prepare_data(
    plan: TrainingPlan, strategy: Strategy, data: Any, validation: Any, stream: DataStream
) -> TrainingInputs:
    """Open the data of a training, and check that they go with the network and the loss.

    Args:
        plan: the options.
        strategy: what each process trains.
        data: the training's.
        validation: held-out data, a share of the rows, or ``None``.
        stream: the random state that the order is drawn from.

    Raises:
        TypeError, ValueError: they do not go together.
    """
    model, loss, per_member = strategy.model, plan.make_loss(), plan.per_member_targets
    draw = strategy.draw(make_draw(strategy.whole, plan.batches, plan.loss_on))
    if per_member and draw is not None:
        raise ValueError(NO_OWN_TARGETS)
    tables: dict[str, Any] = {
        "memory_limit": plan.memory_limit,
        "read": loss.read,
        "numbers": not isinstance(loss, (ClassLoss, Custom)),
        "weighted": True,
        **place_of(model),
    }
    order: dict[str, Any] = {"shuffle": plan.shuffle, "draw": draw, "stream": stream}
    names: dict[str, Any] = {"target": plan.target, "class_names": plan.class_names}
    known = ColumnNames.of(model)
    if isinstance(data, ArrayBatches):  # of a first training
        training: Batches = data
        data.stream = stream
    else:
        training = open_batches(
            data, plan.batch_size, **names, **order, **tables, training=True, known=known
        )
    known = known.and_of(training.feature_names, training.target_names, training.class_names)
    _check_order(plan, loss, data, training)
    held_out: Batches | None = None
    if is_share(validation):
        training, held_out = split_off(training, validation, loss, stream.seed)
    loss = with_balance(loss, training)
    if plan.standardise_targets:
        loss = in_standard_units(loss, model, training, per_member=per_member)
    if validation is not None:
        if held_out is None:
            held_out = open_held_out(validation, plan, training, known, tables)
        check_validation(model, loss, held_out)
    check_data(model, loss, training, per_member=per_member)
    check_targets_rounding(loss, training, place_of(model)["dtype"])
    return TrainingInputs(training, held_out, loss, known)


def _check_order(plan: TrainingPlan, loss: EnsembleLoss, data: Any, training: Batches) -> None:
    """Raise ``ValueError`` where an ordinal loss does not know the order of its classes."""
    of_images = isinstance(data, (str, Path)) and isinstance(training, LoaderBatches)
    if isinstance(training, LoaderBatches) and not of_images:
        return  # the class numbers of a dataset are their order
    advice = "names to the folders that sort" if of_images else "class_names="
    sorted_folders = of_images and training.class_names != tuple(plan.class_names)
    check_order(loss, training.class_names, () if sorted_folders else plan.class_names, advice)


def prepare_objective(
    plan: TrainingPlan, strategy: Strategy, data: TrainingInputs, scaler: GradScaler | None
) -> Objective:
    """Return what a step minimises.

    Args:
        plan: the options.
        strategy: what each process trains.
        data: what is trained on.
        scaler: scales losses in half precision; ``None`` otherwise.
    """
    model, own = strategy.model, data.training.draw is not None
    objective = make_objective(
        model,
        data.loss,
        plan.loss_on,
        own=own,
        own_targets=plan.per_member_targets,
        micro_batch=plan.micro_batch,
        strategy=strategy if strategy.shared else None,
    )
    clipping = None
    if plan.clip is not None:
        clipping = MemberClipping(model.network, model.members, plan.clip)
    return replace(
        objective,
        losses=in_precision(objective.losses, plan.precision, place_of(model)["device"]),
        examples_a_row=strategy.whole.members if plan.batches == "split" and own else 1,
        clipping=clipping,
        scaler=scaler,
    )


def prepare_schedule(
    plan: TrainingPlan, data: TrainingInputs, steps: int | None = None
) -> Schedule:
    """Return the learning rate of each step, of whole epochs or of a number of steps.

    Warns:
        UserWarning: the length of the training is not known, so the rate does not fall at its end.
    """
    timed, used = plan.time_budget is not None, isinstance(plan.optimizer, str)
    if steps is None and data.steps is not None:
        steps = plan.epochs * data.steps
    return Schedule(
        steps,
        plan.schedule if isinstance(plan.schedule, str) else "constant",
        default_cooldown(plan.cooldown, data.steps, used=used, timed=timed),
        plan.warmup,
        timed,
    )


def prepare_callbacks(
    plan: TrainingPlan,
    strategy: Strategy,
    data: TrainingInputs,
    bar: TrainingBar,
    compiled: CompiledLosses | None,
    callbacks: Sequence[Callback],
    trackers: str | Sequence[str | Callback],
) -> list[Callback]:
    """Return the callbacks in the order in which their hooks are called, without checkpoints.

    Args:
        plan: the options.
        strategy: what each process trains.
        data: what is trained and scored on.
        bar: the progress bar.
        compiled: the losses, where they are compiled.
        callbacks: the user's own.
        trackers: names of trackers, or trackers.

    Raises:
        ValueError: an option needs held-out data, and there are none.
    """
    shared = strategy if strategy.shared else None
    found: list[Callback] = [bar]
    if compiled is not None:
        found.append(compiled)
    if plan.average is not None:
        found.append(WeightAveraging(plan.average))
    if data.validation is not None:
        found.append(
            EarlyStopping(
                data.validation,
                every=plan.evaluate_every,
                stop_on=plan.stop_on,
                patience=plan.patience,
                keep_best=plan.keeps_best,
                cooldown=plan.cooldown_on_stop,
                plateau=plan.plateau,
                loss=data.loss,
                strategy=shared,
            )
        )
    elif plan.scores_steer or plan.evaluate_every:
        raise ValueError(
            "validation is missing: schedule=Plateau(), patience= and evaluate_every= use "
            "scores on held-out data"
        )
    if plan.time_budget is not None:
        found.append(TimeBudget(plan.time_budget, strategy.processes))
    held_out = next((each for each in found if isinstance(each, EarlyStopping)), None)
    found.append(MemberDiagnostics(held_out, shared))
    found += [*callbacks, *make_trackers(trackers, plan.label)]
    if strategy.shared:
        found.append(FirstProcessCallbacks(strategy.processes, found))
    return found


def prepare_checkpoints(
    plan: TrainingPlan, strategy: Strategy, data: TrainingInputs, stream: DataStream
) -> tuple[DataState | None, CheckpointCallback | None]:
    """Return the position in the data and the callback for checkpoints, if there are any.

    Raises:
        CheckpointError: nothing can be written there.
        ValueError: the training is to resume, and the state of a data loader cannot be had.
    """
    if plan.checkpoints is None:
        return None, None
    state = DataState(
        data.training, data.validation, stream, resume=plan.resume, steering=plan.scores_steer
    )
    callback = CheckpointCallback(
        plan.checkpoints,
        every=plan.checkpoint_every,
        keep=plan.keep,
        resume=plan.resume,
        strategy=strategy,
    )
    return state, callback
