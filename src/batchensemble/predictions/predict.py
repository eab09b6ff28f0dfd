"""``predict``: the predictions of the members and of the ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.arguments import whole_number
from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import Batches
from batchensemble.data.sources import MEMORY_LIMIT, open_batches, open_inputs
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble, check_inputs_fit, place_of
from batchensemble.layers.modes import evaluating
from batchensemble.losses import ClassLoss, CrossEntropy, Custom, EnsembleLoss, Loss, as_loss
from batchensemble.losses.targets import parted
from batchensemble.predictions import AnyPrediction
from batchensemble.predictions import Prediction as Prediction
from batchensemble.predictions.from_outputs import Arrays, reading


def predict(
    model: Ensemble,
    X: Any,
    *,
    loss: str | Loss | None = None,
    batch_size: int | None = None,
    target: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> AnyPrediction:
    """Return the predictions of every member and of the ensemble for every example.

    The loss determines their kind: :class:`~batchensemble.predictions.Prediction` for classes,
    :class:`~batchensemble.predictions.RegressionPrediction` for numbers,
    :class:`~batchensemble.predictions.MultiLabelPrediction` for multi-label classification.

    Args:
        model: any ensemble.
        X: an array or tensor ``[examples, features...]``, a tuple or a dictionary of arrays, which
            the network takes by position or by name, a data frame or Arrow table, a path, or a
            ``Dataset`` or ``DataLoader`` of inputs, of pairs whose first part are the inputs, or of
            dictionaries; see :func:`batchensemble.fit`. Columns that the training knew by name may
            be in any order; a frame must have no others.
        loss: the loss that the outputs were trained with; by default the one of ``fit``, else the
            cross-entropy of logits.
        batch_size: examples per forward pass; a ``DataLoader`` has its own. By default as many as
            have 256 KiB of inputs, on a GPU 16 MiB, but 16 at least and 4,096 at most.
        target: name of a column or key that is no input; none by default.
        memory_limit: size in bytes above which files are streamed.

    Raises:
        TypeError: ``X`` does not hold numbers, or the loss does not define a prediction.
        ValueError: ``X`` is empty, not finite, has other columns than in training, or does not fit
            the network.

    Example:
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(torch.nn.Linear(2, 3), members=4)
        >>> predict(model, np.zeros((5, 2))).member_probs.shape
        (5, 4, 3)
    """
    check_ensemble(model)
    if batch_size is not None:
        whole_number("batch_size", batch_size)
    place = place_of(model)
    options: dict[str, Any] = {"target": target, "memory_limit": memory_limit, **place}
    batches = open_inputs(X, batch_size, known=ColumnNames.of(model), **options)
    return _prediction(model, model_loss(model, loss), batches)


def predict_pairs(
    model: Ensemble,
    data: Any,
    *,
    loss: str | Loss | None = None,
    target: str | None = None,
    class_names: Sequence[Any] = (),
    memory_limit: int = MEMORY_LIMIT,
) -> tuple[AnyPrediction, np.ndarray]:
    """Return the prediction on data with targets, and the targets in the same order.

    Args:
        model: any ensemble.
        data: inputs and targets in any form that :func:`batchensemble.fit` takes.
        loss: the loss that the outputs were trained with; by default as in :func:`predict`.
        target: name of the column or key of the targets; by default that of the training.
        class_names: the classes in the order of their numbers, if the targets are text.
        memory_limit: size in bytes above which files are streamed.
    """
    check_ensemble(model)
    found = model_loss(model, loss)
    batches = open_pairs(
        model, found, data, target=target, class_names=class_names, memory_limit=memory_limit
    )
    seen: list[Tensor] = []

    def inputs_only() -> Iterator[Inputs]:
        for inputs, targets in batches:
            seen.append(parted(targets)[0].cpu())
            yield inputs

    prediction = _prediction(model, found, inputs_only())
    return prediction, torch.cat(seen).numpy()


def open_pairs(
    model: Ensemble,
    loss: EnsembleLoss,
    data: Any,
    *,
    target: str | None,
    class_names: Sequence[Any],
    memory_limit: int,
) -> Batches:
    """Return batches of data with targets for a trained model, as its training read them.

    Args:
        model: any ensemble.
        loss: the loss that its outputs were trained with.
        data: inputs and targets, as in :func:`predict_pairs`; so are the others.
        target: name of the column or key of the targets.
        class_names: the classes in the order of their numbers, if the targets are text.
        memory_limit: size in bytes above which files are streamed.
    """
    return open_batches(
        data,
        None,
        target=target,
        class_names=class_names,
        memory_limit=memory_limit,
        read=loss.read,
        numbers=not isinstance(loss, (ClassLoss, Custom)),
        known=ColumnNames.of(model),
        **place_of(model),
    )


def model_loss(model: Ensemble, loss: str | Loss | None = None) -> EnsembleLoss:
    """Return the loss given, else the one that the model was trained with, else cross-entropy."""
    if loss is not None:
        return as_loss(loss)
    return CrossEntropy() if model.loss is None else model.loss


def predict_batches(
    model: Ensemble, loss: EnsembleLoss, pairs: Iterable[tuple[Inputs, Any]]
) -> Iterator[tuple[AnyPrediction, np.ndarray]]:
    """Yield the prediction on each batch, and its targets, where not all outputs can be held.

    Args:
        model: any ensemble, in evaluation mode and without gradients: a generator that set these
            would leave them set where it is not exhausted.
        loss: the loss that the outputs were trained with.
        pairs: batches of inputs and targets.
    """
    latest: list[np.ndarray] = []

    def inputs_only() -> Iterator[Inputs]:
        for inputs, targets in pairs:
            latest[:] = [parted(targets)[0].cpu().numpy()]
            yield inputs

    found = reading(loss)
    for arrays in _arrays(model, loss, inputs_only()):
        yield found.make(*arrays), latest[0]


def _prediction(model: Ensemble, loss: EnsembleLoss, batches: Iterable[Inputs]) -> AnyPrediction:
    with evaluating(model), torch.no_grad():
        parts = list(_arrays(model, loss, batches))
    if not parts:
        raise ValueError("there must be at least one example to predict, got none")
    return reading(loss).make(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _arrays(model: Ensemble, loss: EnsembleLoss, batches: Iterable[Inputs]) -> Iterator[Arrays]:
    """Yield what the prediction on each batch is made of."""
    found = reading(loss)
    after = model.calibrator if found.make is Prediction else None
    if after is not None and after.pooling == "before":
        after = None  # the outputs are calibrated already
    checked = False
    for inputs in batches:
        if checked:
            outputs = model(inputs)
        else:
            outputs = check_inputs_fit(model, inputs)
            found.check(outputs.shape)
            checked = True
        arrays = found.of(outputs)
        yield arrays if after is None else (*arrays, after.of_mean(arrays[0]))
