"""``fit``: the training loop of every ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.rules import Selectors
from batchensemble.losses import Loss, LossOn
from batchensemble.training.batch_sizes import raise_if_alone
from batchensemble.training.callbacks.base import Callback
from batchensemble.training.history import History
from batchensemble.training.optim.optimizers import OptimizerFactory, SchedulerFactory
from batchensemble.training.optim.schedules import Plateau, Shape
from batchensemble.training.plan import StrategyName, TrainingPlan
from batchensemble.training.preparation import prepare
from batchensemble.training.run import TrainingRun
from batchensemble.training.sampling import Sampling


def train(run: TrainingRun) -> None:
    """Go through the data until the run is over: the loop of every training."""
    if run.step or run.over:
        run.begin()  # else after the first batch was admitted
    while not run.over:
        run.begin_epoch()
        for inputs, targets in run.remaining():
            run.updater.clear()
            try:
                losses, weight = run.objective.backward(inputs, targets)
            except (RuntimeError, ValueError) as error:
                raise_if_alone(error)
                raise
            run.check(losses, weight, inputs)
            run.updater.step()
            run.step_done(inputs, targets)
            if run.history.stopped:
                break
        run.end_epoch()
    run.call("on_end")


def fit(
    model: Ensemble,
    data: Any,
    *,
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
        model: any ensemble.
        data: one of these. A pair ``(X, y)`` of arrays, tensors, data frames or Arrow tables, with
            targets as the loss takes them, ``[examples, ...]``. A
            data frame of pandas or polars or an Arrow table, or the path of a CSV, Parquet or
            Feather file or of a folder of Parquet files, with ``target=``. A ``Dataset``,
            ``IterableDataset``, ``DataLoader`` or dataset of Hugging Face that yields pairs or,
            with ``target=``, dictionaries; inputs may be dictionaries or tuples, which the network
            takes by name or by position. The path of a folder of class folders of images. What fits
            in memory lies on the device once. A third part ``w`` of a pair, ``[examples]``, says
            how much each example counts: the mean of a batch is then over the sum of its weights.
            Columns are remembered by their names, ``model.feature_names``, by which ``validation``
            and all data from then on are reordered or refused.
        validation: held-out data in the same forms, scored after each epoch.
        target: the column or key of the targets, in ``data`` and ``validation``. Text in a column
            are classes, numbered in ``history.class_names``.
        class_names: the order of these classes; by default that of the training before, or the one
            that an ordered categorical declares, else sorted; the ordinal loss needs one of these.
            Numbers, such as ``[-1, 1]``, say what stands in ``y`` in place of class numbers from 0
            on.
        memory_limit: bytes that a file may take as float32; of a larger one two windows, of an
            eighth of it each, are in memory at a time, and examples are shuffled within these.
        epochs: times the data are gone through.
        batch_size: examples a step; a ``DataLoader`` has its own.
        lr: the highest learning rate.
        loss: ``"cross_entropy"``, ``"binary_cross_entropy"``, ``"mse"``, ``"huber"``,
            ``"gaussian_nll"``, ``"quantile"``, ``"ordinal"``; one with other settings, such as
            ``batchensemble.losses.Huber(delta=2.0)``; or a function from ``[batch, members, ...]``
            and targets to ``[batch, members]``. See :mod:`batchensemble.losses`.
        loss_on: ``"members"``, or ``"mean_logits"`` as in the notebook, whose members are then
            free to be wrong one by one; all members then see the same examples.
        class_weight: how much each class counts: a list, a mapping from some classes to theirs, or
            ``"balanced"``, which counts the classes of arrays, tables and files. Of the
            cross-entropy, as the next two; held-out data are scored without.
        label_smoothing: share of the target that is spread over all classes.
        ignore_index: the number in ``y`` that stands where there is no class.
        standardise_targets: train on the targets of a loss of numbers less their mean, over their
            standard deviation, which networks learn sooner than numbers of any size. The outputs
            and the losses of the history are in these units, as its ``standardised`` says;
            ``predict`` and ``evaluate`` give the targets' own back.
        per_member_targets: ``y`` is ``[examples, members, ...]``, a target of its own for each
            member. Unless this says so, all members have the same, whatever the shape: labels are
            ``[examples]`` or a column ``[examples, 1]``, and one-hot rows are refused. Held-out
            targets are always the same for all, who are scored together.
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"`` (momentum 0.9), an optimiser of torch, or a
            function that makes one from the list of parameters; the last two see to their learning
            rate themselves, and ``lr``, ``schedule`` and ``cooldown`` are not used.
        weight_decay: of the weights of layers; fast weights, biases and norms have none.
        fast_lr_multiplier: of the fast weights' learning rate.
        schedule: ``"constant"``, ``"linear"``, ``"cosine"``, ``"one_cycle"``; ``Plateau()``, which
            needs ``validation``; or a function that makes torch's scheduler of an optimiser, which
            then takes a step with each of the training's.
        cooldown: share of the steps, at the end, in which the learning rate falls to 0 in a
            straight line; without it the last steps' noise stays in the weights. By default 0.1,
            and 0, with a warning, where the data do not know their length.
        warmup: steps, at the start, in which it rises.
        clip: the largest norm of a member's gradient, see
            :class:`~batchensemble.training.clipping.MemberClipping`.
        precision: ``"float32"`` is the network's own; ``"bf16"`` and ``"fp16"`` autocast.
        average: decay of a moving average of the weights, such as 0.999, which is scored and kept
            in place of the last weights.
        shuffle: a new order each epoch.
        batches: what the members see of a batch. ``"shared"``: all of them all of it, at the
            arithmetic of M networks. ``"independent"``: each its own order of the examples, as if
            trained alone, at the same arithmetic (with a data loader the orders differ within a
            batch only). ``"split"``: each its share, at the arithmetic of one network, as in the
            paper; a member then needs M times the epochs to see as many examples. By default the
            method's own: shared, but for a deep ensemble independent.
        micro_batch: examples that go through the network at a time, for an ensemble that does not
            fit in memory otherwise; the gradients of a batch add up, so that only batch norm and
            dropout tell the difference.
        gradient_checkpointing: modules, by name, pattern, class or function, whose insides are
            computed again in the backward instead of kept: less memory, about a third more time.
            ``True``: each block directly beneath the network.
        compile: train through ``torch.compile``, in the mode of this name or its default one;
            ``history.compilation`` tells what it gained. Compiling takes seconds to minutes.
        evaluate_every: steps between two scorings of the held-out data; by default an epoch's.
        stop_on: the held-out score that says which weights are best: the ensemble's ``"nll"``,
            ``"accuracy"``, ``"brier"`` or ``"ece"``. ``"nll"`` is the loss's own score of the
            ensemble where it is not of classes.
        patience: scorings without a better score after which the training ends; the best weights
            come back then, and at the regular end too.
        checkpoints: a folder for checkpoints; SIGTERM and Ctrl-C then let the step end, write one,
            and leave with 143 or 130.
        checkpoint_every: steps between two; by default an epoch's.
        keep: how many of the last stay.
        resume: go on from the newest checkpoint, bit by bit as if nothing had happened; without one
            start afresh. A data loader whose state cannot be had is refused.
        callbacks: what else is to be done, see
            :class:`~batchensemble.training.callbacks.base.Callback`.
        trackers: ``"tensorboard"``, ``"wandb"``, ``"mlflow"``, which write to the folder ``runs``;
            or a :class:`~batchensemble.training.callbacks.tracking.Tracking`, which knows another.
        seed: of the order and of dropout; the caller's random state stays as it is. ``None`` draws
            from the caller's.
        progress: show a bar; by default only in a terminal.
        label: what the bar calls this training.
        strategy: how processes that ``torchrun`` or ``accelerate launch`` started share the
            training out. ``"ddp"``: each takes some examples of each batch, with the result of one
            process. ``"fsdp"``: the same, and each holds a piece of every weight, gradient and
            moment, for networks too large for one device; not with ``clip``, ``average`` and
            ``compile``. ``"members"``, of a deep ensemble: each trains some of the members. Only
            the first process writes, shows a bar, warns and runs callbacks, unless they say that
            they run in every process; all return the same.

    Returns:
        The history, one entry an epoch.

    Raises:
        TypeError: an argument or the data are of the wrong type.
        ValueError: an argument is out of range, or the data do not fit the network. Nothing has
            been trained then.
        FloatingPointError: a loss is not finite; the weights are those before that step.
        CheckpointError: a checkpoint cannot be written, or is of another training.
            ``LostCheckpointError``, which is an ``OSError`` too: on a disk that is full.
        ProcessLostError: another process of the training has ended or does not answer.

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
        checkpoints=checkpoints, checkpoint_every=checkpoint_every, keep=keep, resume=resume,
        progress=progress, label=label, strategy=strategy,
    )  # fmt: skip
    with prepare(plan, model, data, validation, callbacks=callbacks, trackers=trackers) as run:
        train(run)
    return run.history
