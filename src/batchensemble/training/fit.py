"""``fit``: the training loop of every ensemble."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.rules import Selectors
from batchensemble.losses import Loss, LossOn
from batchensemble.training.batch_sizes import raise_for_single_row
from batchensemble.training.callbacks.base import Callback
from batchensemble.training.chosen_members import ChosenMembers
from batchensemble.training.history import History
from batchensemble.training.optim.optimizers import OptimizerFactory, SchedulerFactory
from batchensemble.training.optim.schedules import Plateau, Shape
from batchensemble.training.plan import StrategyName, TrainingPlan
from batchensemble.training.preparation import prepare
from batchensemble.training.refitting import Refitting
from batchensemble.training.run import TrainingRun
from batchensemble.training.sampling import Sampling


def training_loop(run: TrainingRun) -> None:
    """Train until the run is over: the loop of every training."""
    if run.step or run.over:
        run.begin()  # otherwise after the first batch was checked
    while not run.over:
        run.begin_epoch()
        for inputs, targets in run.remaining():
            run.updater.clear()
            try:
                losses, weight = run.objective.backward(inputs, targets)
            except (RuntimeError, ValueError) as error:
                raise_for_single_row(error)
                raise
            run.check(losses, weight, inputs)
            run.updater.step()
            run.step_done(inputs, targets)
            if run.history.stopped:
                break
        run.end_epoch()
    run.call("on_end")


def train_twice(
    plan: TrainingPlan, model: Ensemble, data: Any, validation: Any, **options: Any
) -> History:
    """Train for the best number of passes, then on all rows for as many, see ``refit=True``."""
    refitting, before = Refitting(plan, model, validation), time.perf_counter()
    with prepare(refitting.first, model, data, validation, **options) as run:
        refitting.check(run)
        training_loop(run)
    again = refitting.next(run.history, time.perf_counter() - before)
    kept: dict[str, Any] = {"callbacks": again.callbacks, "steps": again.steps}
    with prepare(again.plan, model, again.data, **kept) as second:
        training_loop(second)
    refitting.record(run.history, second)
    return run.history


def train(
    plan: TrainingPlan,
    model: Ensemble,
    data: Any,
    validation: Any,
    *,
    shared: bool = False,
    **options: Any,
) -> History:
    """Train all members of an ensemble, or those that the plan names.

    Args:
        plan: the options.
        model: the ensemble, which is trained in place.
        data: the training data.
        validation: held-out data, a share of the rows, or ``None``.
        shared: where the plan names members, whether what all share is trained with them.
        options: ``callbacks`` and ``trackers``, see :func:`fit`.
    """
    if plan.members is None:
        if plan.refit:
            return train_twice(plan, model, data, validation, **options)
        with prepare(plan, model, data, validation, **options) as run:
            training_loop(run)
        return run.history
    with ChosenMembers(model, plan.members, plan, shared=shared) as chosen:
        if plan.refit:
            chosen.check()
            return train_twice(plan, chosen.part, data, validation, **options)
        with prepare(plan, chosen.part, data, validation, **options) as run:
            chosen.check()
            training_loop(run)
    return run.history


def fit(
    model: Ensemble,
    data: Any,
    *,
    members: Sequence[int] | None = None,
    validation: Any = None,
    target: str | None = None,
    class_names: Sequence[Any] = (),
    memory_limit: int = MEMORY_LIMIT,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-3,
    loss: str | Loss = "cross_entropy",
    loss_on: LossOn = "members",
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    standardise_targets: bool = False,
    per_member_targets: bool = False,
    optimizer: str | Optimizer | OptimizerFactory = "adam",
    weight_decay: float = 0.0,
    fast_lr_multiplier: float = 1.0,
    schedule: Shape | Plateau | SchedulerFactory = "constant",
    cooldown: float | None = None,
    warmup: int = 0,
    clip: float | None = None,
    precision: str = "float32",
    average: float | None = None,
    shuffle: bool = True,
    batches: Sampling | None = None,
    micro_batch: int | None = None,
    gradient_checkpointing: bool | Selectors = False,
    compile: bool | str = False,
    evaluate_every: int | None = None,
    stop_on: str = "nll",
    patience: int | None = None,
    time_budget: float | None = None,
    refit: bool = False,
    checkpoints: str | Path | None = None,
    checkpoint_every: int | None = None,
    keep: int = 2,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    trackers: str | Sequence[str | Callback] = (),
    seed: int | None = 0,
    progress: bool | None = None,
    label: str = "training",
    strategy: StrategyName = "ddp",
) -> History:
    """Train an ensemble in place.

    The loss is averaged over the examples of a batch and summed over the members, so each member
    gets the gradient that it would get alone.

    Args:
        model: the ensemble.
        data: the training data, in one of these forms. A pair ``(X, y)`` of arrays, tensors, data
            frames or Arrow tables, with targets ``[examples, ...]`` as the loss takes them; ``X``
            may be a tuple or a dictionary of arrays, which the network takes by position or by
            name, whole numbers as int64. A data
            frame of pandas or polars or an Arrow table, or the path of a CSV, Parquet or Feather
            file or of a folder of Parquet files, with ``target=``. A ``Dataset``,
            ``IterableDataset``, ``DataLoader`` or dataset of Hugging Face that yields pairs or,
            with ``target=``, dictionaries; inputs may be dictionaries or tuples, which the network
            takes by name or by position. The path of a folder with a folder of images for each
            class. Data that fit into memory are moved to the device once. A third part ``w`` of a
            pair, ``[examples]``, weights the examples: the mean over a batch is divided by the sum
            of its weights. Column names are stored as ``model.feature_names``; later data with
            names are reordered by them, or refused.
        members: numbers of the members to train, such as ``[2]``: what each of them owns (fast
            weights, biases, norms and their running statistics, heads) is trained, as far as
            :meth:`~batchensemble.Ensemble.train_only` does not freeze it, and all else stays
            bit for bit. A step costs what these members cost. Callbacks see an ensemble of them
            alone, and held-out scores are theirs. By default all members, and what they share.
        validation: held-out data in the same forms, scored after each epoch; or, as in ``0.2``, the
            share of the rows of ``data`` to hold out, drawn by ``seed``. Classes keep their
            proportions. Data loaders, datasets and streamed files are not divided.
        target: the column or key of the targets, in ``data`` and ``validation``. Text in it is
            taken as classes, which are numbered in ``history.class_names``.
        class_names: the order of these classes. By default the order of an earlier training, or the
            one that an ordered categorical declares, or else the sorted one; the ordinal loss needs
            one of the first two or this argument. Numbers, such as ``[-1, 1]``, are the values of
            ``y`` that stand for the classes 0, 1, ....
        memory_limit: bytes that a file may take as float32, by default 512 MiB. A larger file is
            streamed: two windows of an eighth of the limit are in memory at a time, and examples
            are shuffled within a window.
        epochs: number of passes over the training data.
        batch_size: examples a step. A ``DataLoader`` has its own.
        lr: the highest learning rate of the training.
        loss: ``"cross_entropy"``, ``"binary_cross_entropy"``, ``"mse"``, ``"huber"``,
            ``"gaussian_nll"``, ``"quantile"`` or ``"ordinal"``; a loss with other settings, such as
            ``batchensemble.losses.Huber(delta=2.0)``; or a function from outputs ``[batch, members,
            ...]`` and targets to losses ``[batch, members]``. See :mod:`batchensemble.losses`.
        loss_on: ``"members"`` averages the members' losses. ``"mean_logits"`` is the loss of their
            mean logits, as in the notebook; a member alone may then be wrong. All members then see
            the same examples.
        class_weight: weight of each class: a list, a mapping from some of the classes, or
            ``"balanced"``, which counts the classes of arrays, tables and files. For the
            cross-entropy only, as the next two; held-out data are scored without it.
        label_smoothing: share of the target probability that is spread over all classes, 0 to 1.
        ignore_index: the class number that marks an entry of ``y`` without a class.
        standardise_targets: train a loss of numbers on standardised targets (less their mean,
            divided by their standard deviation), which networks learn faster. Outputs are then in
            these units; ``predict``, ``evaluate`` and the history convert back. The losses of
            targets of several units cannot be (``history.standardised`` is then true).
        per_member_targets: ``y`` is ``[examples, members, ...]``, with targets for each member. By
            default all members have the same targets: labels are ``[examples]`` or a column
            ``[examples, 1]``, and one-hot rows are refused. Held-out targets are always the same
            for all members.
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"`` (momentum 0.9), an optimiser of torch, or a
            function that makes one from the list of parameters. The last two set their own learning
            rates, and ``lr``, ``schedule`` and ``cooldown`` are not used.
        weight_decay: weight decay of the layers' weights. Fast weights, biases and normalisation
            layers have none.
        fast_lr_multiplier: factor on the learning rate of the fast weights.
        schedule: ``"constant"``, ``"linear"``, ``"cosine"`` or ``"one_cycle"``; ``Plateau()``,
            which needs ``validation``; or a function that makes a scheduler of torch from an
            optimiser; this scheduler then takes a step after each training step.
        cooldown: share of the steps or of the time budget, at the end of the training, in which the
            learning rate falls linearly to 0; without it the noise of the last steps stays in the
            weights. By default 0.1, or 0, with a warning, if the length of the data is unknown. A
            share that is given also holds where ``patience`` runs out, unless there is an
            ``average``: from the best weights the rate then falls over this share of the steps done
            so far, and the result is kept only if its held-out score is better. By default such a
            training ends at once, since on small tables that changed little and took time.
        warmup: number of steps, at the start, in which the learning rate rises linearly from 0.
        clip: largest norm of a member's gradient, see
            :class:`~batchensemble.training.clipping.MemberClipping`. By default no limit.
        precision: ``"float32"`` computes in the network's own type; ``"bf16"`` and ``"fp16"`` use
            autocast.
        average: decay of an exponential moving average of the weights, such as 0.999. The average
            is scored, and replaces the last weights at the end.
        shuffle: whether each epoch has a new order.
        batches: which examples of a batch each member sees. ``"shared"``: all of them, at the cost
            of M networks. ``"independent"``: as many, in an order of its own, as if trained alone,
            at the same cost (with a data loader the orders differ within a batch only).
            ``"split"``: its share, at the cost of one network, as in the paper; a member then needs
            M times the epochs to see as many examples. By default ``"independent"`` for a deep
            ensemble and ``"shared"`` for the others.
        micro_batch: number of examples that go through the network at once, to save memory. The
            gradients of a batch are summed, so only batch norm and dropout give other results. By
            default the whole batch.
        gradient_checkpointing: modules, by name, pattern, class or function, whose activations are
            computed again in the backward pass instead of stored: less memory, about a third more
            time. ``True``: each block directly beneath the network.
        compile: train through ``torch.compile``, in its default mode or the named one;
            ``history.compilation`` reports the speed-up. Compiling takes seconds to minutes.
        evaluate_every: number of steps between two evaluations of the held-out data. By default
            they are evaluated after each epoch.
        stop_on: the held-out score of the ensemble that decides which weights are best: any that
            ``evaluate`` gives for the loss and that has a better end, such as ``"accuracy"``,
            ``"brier"`` and ``"ece"``, or for numbers ``"rmse"``, ``"mae"``, ``"r2"`` and
            ``"crps"``, in the targets' unit. ``"nll"``, the default, is the held-out loss for
            losses that are not of classes.
        patience: stop after this number of evaluations without a better score. The best weights are
            then restored, also when the training runs to its end. By default it never stops early.
        time_budget: seconds after which the training stops at the end of a step, evaluations and
            the time before a checkpoint included. The best weights are then restored if there are
            held-out data. ``schedule`` and ``cooldown`` follow the time where it runs out before
            the epochs do, so the learning rate falls within the budget; two such runs are not equal
            bit by bit. By default there is no limit.
        refit: train a second time after that, from the initial weights, on the training and the
            held-out rows together, for as many passes as the best weights had seen (their steps
            grow with the rows), with the learning rate falling at their end; ``history.refit`` says
            so. Held-out scores are then those of the first training. The first one may use half of
            a time budget. Callbacks and trackers see the first training alone. For arrays and
            tables in memory.
        checkpoints: folder for checkpoints. On SIGTERM and Ctrl-C the training then finishes its
            step, writes a checkpoint, and exits with 143 or 130.
        checkpoint_every: number of steps between two checkpoints. By default one is written after
            each epoch.
        keep: number of checkpoints to keep; older ones are deleted.
        resume: resume from the newest checkpoint, with the same result bit by bit as without the
            interruption; start from scratch if there is none. A data loader whose state cannot be
            stored is refused.
        callbacks: your own callbacks, see :class:`~batchensemble.training.callbacks.base.Callback`.
        trackers: ``"tensorboard"``, ``"wandb"``, ``"mlflow"``, which write to the folder ``runs``;
            or a :class:`~batchensemble.training.callbacks.tracking.Tracking` with another folder.
        seed: seed of the order of the data and of dropout. The caller's random state is not
            changed. ``None`` draws from the caller's random state.
        progress: whether to show a progress bar. By default only in a terminal.
        label: text before the progress bar.
        strategy: how the processes that ``torchrun`` or ``accelerate launch`` started share the
            training. ``"ddp"``: each takes some examples of each batch; the result is that of one
            process. ``"fsdp"``: in addition each holds a piece of every weight, gradient and
            moment, for networks too large for one device; not with ``clip``, ``average`` and
            ``compile``. ``"members"``, for a deep ensemble: each trains some of the members. Only
            the first process writes files, shows a bar, warns and runs callbacks (except those with
            ``every_process = True``); all return the same.

    Returns:
        The history, with one entry an epoch. Its ``plan`` holds the options above.

    Raises:
        TypeError: an argument or the data are of the wrong type.
        ValueError: an argument is out of range, or the data do not fit the network. Nothing has
            been trained then.
        FloatingPointError: a loss is not finite; the weights are those before that step.
        CheckpointError: a checkpoint cannot be written, or is of another training.
            ``LostCheckpointError``, which is an ``OSError`` too, if the disk is full.
        ProcessLostError: another process of the training has ended or does not respond.

    Example:
        >>> import torch
        >>> X, y = torch.randn(64, 2), torch.randint(2, (64,))
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(torch.nn.Linear(2, 2), members=3)
        >>> len(fit(model, (X, y), epochs=2).losses)
        2
    """
    plan = TrainingPlan(
        target=target, class_names=class_names, memory_limit=memory_limit,
        epochs=epochs, batch_size=batch_size, shuffle=shuffle, batches=batches, seed=seed,
        loss=loss, loss_on=loss_on, class_weight=class_weight, label_smoothing=label_smoothing,
        ignore_index=ignore_index, standardise_targets=standardise_targets,
        per_member_targets=per_member_targets,
        optimizer=optimizer, lr=lr, weight_decay=weight_decay,
        fast_lr_multiplier=fast_lr_multiplier, schedule=schedule, cooldown=cooldown, warmup=warmup,
        clip=clip, precision=precision, average=average,
        micro_batch=micro_batch, gradient_checkpointing=gradient_checkpointing, compile=compile,
        evaluate_every=evaluate_every, stop_on=stop_on, patience=patience,
        time_budget=time_budget, refit=refit,
        checkpoints=checkpoints, checkpoint_every=checkpoint_every, keep=keep, resume=resume,
        progress=progress, label=label, strategy=strategy, members=members,
    )  # fmt: skip
    return train(plan, model, data, validation, callbacks=callbacks, trackers=trackers)
