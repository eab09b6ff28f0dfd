"""``distil``: one plain network that predicts as an ensemble does, with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.core.inputs import Inputs, Nested
from batchensemble.data.sources import MEMORY_LIMIT, open_inputs
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.ensembles import Ensemble, Single
from batchensemble.ensembles.checks import check_ensemble, check_inputs_fit, place_of
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.copies import copied
from batchensemble.ensembles.widening import widen_outputs
from batchensemble.losses import Distilled, FromTeacher, Standardised, as_distilled
from batchensemble.predictions.predict import model_loss
from batchensemble.training.distilling.inputs import MIXINGS, Mixing, concatenated, mixtures
from batchensemble.training.distilling.teacher import told_by
from batchensemble.training.fit import fit

LEAST_INPUTS = 60_000  # examples to ask the ensemble about, at least
OF_THE_TEACHER = (
    "loss",
    "loss_on",
    "class_weight",
    "label_smoothing",
    "ignore_index",
    "standardise_targets",
    "per_member_targets",
    "class_names",
    "batches",
)


def distil(
    model: Ensemble,
    network: nn.Module,
    data: Any,
    *,
    validation: Any = None,
    target: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    mixing: Mixing | Callable[[Inputs], Inputs] = "auto",
    synthetic: int | None = None,
    epochs: int = 10,
    seed: int | None = 0,
    **options: Any,
) -> Single:
    """Return one network that predicts as the ensemble does, with its uncertainty by source.

    It learns the ensemble's mean prediction and, by a further output for each prediction, how much
    of the uncertainty is epistemic: the mean and the spread, as in ensemble distribution
    distillation (Malinin et al. 2020, arXiv 1905.00076), but without a Dirichlet distribution. It
    predicts at the cost of one network, through the same functions: ``predict`` gives ``total``,
    ``aleatoric`` and ``epistemic``. What members predict one by one is lost.

    Labels are not used: the ensemble gives the targets, so unlabelled examples help. On the
    examples that it was trained on an ensemble is more certain than on others, and its members
    agree. It is therefore asked about synthetic inputs, too, each made of two examples.

    Args:
        model: a trained ensemble of classes, labels, normal distributions or numbers; calibrated,
            its calibrated probabilities are learnt. It is not changed.
        network: a plain network that takes the same inputs; it is copied with its weights. With as
            many outputs as the ensemble's networks its last layer, linear or a convolution, gets
            further ones; or it has these already: one more than classes; two for each label, three
            for each normal distribution, two for each number.
        data: inputs, with or without targets, in any form that :func:`batchensemble.fit` or
            :func:`batchensemble.predict` takes. A pair ``(X, y)`` is of inputs and targets; for
            several inputs by position give ``((X1, X2), None)``. Use the training data, and
            unlabelled ones if there are.
        validation: other inputs in the same forms, scored after each epoch by how far the network
            is from the ensemble, in nats up to a constant; for ``patience=`` and the like.
        target: name of a column or key of ``data`` that is no input; by default none.
        memory_limit: bytes that the inputs may take: they are held in memory, synthetic ones, too.
        mixing: how synthetic inputs are made. ``"average"``: on the line through two examples, up
            to half their distance beyond, whole numbers being exchanged; ``"exchange"``: each entry
            is that of one of both; ``"auto"`` (default): by exchange for tables with an encoding,
            whose categories have no mean, by average for others; ``"none"``: there are none. Or a
            function from inputs of random examples, a tensor or a
            :class:`~batchensemble.core.inputs.Nested`, to synthetic ones.
        synthetic: their number; by default as many as make 60,000 inputs with those of the data,
            and at least as many as these, as far as memory allows.
        epochs: number of passes over all inputs.
        seed: seed of the synthetic inputs and of the training, see :func:`batchensemble.fit`.
        options: further arguments of :func:`batchensemble.fit`, such as ``batch_size=``, ``lr=``,
            ``patience=``, ``progress=`` and ``checkpoints=``, but for those of losses.

    Returns:
        A :class:`~batchensemble.Single`, to ``save`` and ``load`` as any. Its ``loss`` says what
        the outputs mean, and ``member(0)`` is the plain network.

    Raises:
        TypeError: an argument has the wrong type, or is of losses.
        ValueError: the ensemble cannot be distilled, the network does not go with it or with the
            data, or the data are too large for ``memory_limit``.

    Example:
        >>> from batchensemble import DeepEnsemble, predict
        >>> def network():
        ...     return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> X, y = torch.randn(60, 2), torch.randint(3, (60,))
        >>> model = DeepEnsemble(network(), members=4)
        >>> history = fit(model, (X, y), epochs=2)
        >>> student = distil(model, network(), X, epochs=1, synthetic=100)
        >>> student.members, predict(student, X).epistemic.shape
        (1, (60,))
    """
    check_ensemble(model)
    check_network(network)
    foreign = [name for name in OF_THE_TEACHER if name in options]
    if foreign:
        raise TypeError(f"{foreign[0]}= is not for distil: the ensemble gives the targets")
    of_model = model_loss(model)
    meaning = as_distilled(of_model)
    if not callable(mixing):
        one_of("mixing", mixing, MIXINGS)
    given = _inputs(model, data, target, memory_limit)
    count = _synthetic(given, synthetic, mixing, memory_limit)
    inputs = given
    if count:
        way = _chosen(model, mixing)
        generator = torch.Generator().manual_seed(_seed(seed))
        inputs = concatenated((given, mixtures(given, count, way, generator)), memory_limit)
    told = told_by(model, of_model, inputs)
    inner = meaning.loss if isinstance(meaning, Standardised) else meaning
    assert isinstance(inner, Distilled)
    student = _student(model, network, inner, given, told.shape[1])
    held_out = None
    if validation is not None:
        found = _inputs(model, validation, target, memory_limit)
        held_out = _pair(found, told_by(model, of_model, found))
    fit(
        student,
        _pair(inputs, told),
        validation=held_out,
        loss=FromTeacher(inner),
        memory_limit=memory_limit,
        epochs=epochs,
        seed=seed,
        label=options.pop("label", "distilling"),
        **options,
    )
    student.loss = meaning
    ColumnNames.of(model).tell(student)
    student.encoding, student.feature_scaling = model.encoding, model.feature_scaling
    return student.eval()


def _inputs(model: Ensemble, data: Any, target: str | None, memory_limit: int) -> Inputs:
    """Return all inputs of data with or without targets."""
    X = data[0] if isinstance(data, tuple) and len(data) in (2, 3) else data
    options: dict[str, Any] = {"target": target, "memory_limit": memory_limit, **place_of(model)}
    return concatenated(open_inputs(X, None, known=ColumnNames.of(model), **options), memory_limit)


def _synthetic(inputs: Inputs, synthetic: int | None, mixing: Any, memory_limit: int) -> int:
    """Return the number of synthetic inputs."""
    if mixing == "none":
        if synthetic:
            raise ValueError(f"mixing='none' makes no synthetic inputs, got synthetic={synthetic}")
        return 0
    if synthetic is not None:
        return whole_number("synthetic", synthetic, at_least=0)
    free = (memory_limit - inputs.nbytes) // max(1, inputs[:1].nbytes)
    return max(0, min(free, max(LEAST_INPUTS - len(inputs), len(inputs))))


def _seed(seed: int | None) -> int:
    """Return a seed, by default one of the caller's random state."""
    return int(torch.randint(2**62, ())) if seed is None else seed


def _chosen(model: Ensemble, mixing: Any) -> Any:
    if mixing != "auto":
        return mixing
    return "average" if model.encoding is None else "exchange"


def _student(
    model: Ensemble, network: nn.Module, loss: Distilled, inputs: Inputs, told: int
) -> Single:
    """Return the network that will be trained, with the outputs that the loss needs.

    Args:
        model: the ensemble.
        network: the user's.
        loss: what its outputs will mean.
        inputs: some examples.
        told: number of the ensemble's numbers for each example.

    Raises:
        ValueError: the network has another number of outputs.
    """
    few = inputs[:2]
    batch_axis = model.batch_axis
    of_teacher = check_inputs_fit(model, few).shape
    student = Single(network, batch_axis=batch_axis)
    device = place_of(student)["device"]
    found = check_inputs_fit(student, few.to(device)).shape
    needed = loss.outputs_for(told)
    if len(found) < 3 or found[3:] != of_teacher[3:] or found[2] not in (needed, of_teacher[2]):
        raise ValueError(
            f"the network must have outputs of the shape {list(of_teacher[2:])}, as those of the "
            f"ensemble, or {needed} in place of the first number, with those of the uncertainty; "
            f"got {list(found[2:])}"
        )
    if found[2] == needed:
        return student
    wider = copied(network)
    widen_outputs(wider, needed - found[2])
    return Single(wider, batch_axis=batch_axis)


def _pair(inputs: Inputs, told: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """Return inputs and the ensemble's numbers as ``fit`` takes them."""
    if not isinstance(inputs, Nested):
        return inputs, told
    values = inputs.values
    return tuple(values) if isinstance(values, (list, tuple)) else values, told
