"""``predict``: what the members say, what they say together, and how much they differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.arguments import whole_number
from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import PREDICTION_BATCH
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
    batch_size: int = PREDICTION_BATCH,
    target: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> AnyPrediction:
    """Return what every member predicts for every example, and what they predict together.

    What that is, the loss tells: :class:`~batchensemble.predictions.Prediction` of classes,
    :class:`~batchensemble.predictions.RegressionPrediction` of numbers,
    :class:`~batchensemble.predictions.MultiLabelPrediction` of labels that are there or not.

    Args:
        model: any ensemble.
        X: an array or tensor ``[examples, features...]``, a data frame or Arrow table, a path, or a
            ``Dataset`` or ``DataLoader`` of inputs, of pairs whose first part are the inputs, or of
            dictionaries; see :func:`batchensemble.fit`. Columns that the training knew by name may
            be in any order; a frame must have no others beside them.
        loss: what the outputs are; by default what ``fit`` trained with, else logits of classes.
        batch_size: examples a forward pass; a ``DataLoader`` has its own.
        target: a column or key that is no input.
        memory_limit: bytes; larger files are streamed.

    Raises:
        TypeError: ``X`` holds no numbers, or the loss does not say what the outputs are.
        ValueError: ``X`` is empty, not finite, has other columns than the training's, or does not
            fit the network.

    Example:
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(torch.nn.Linear(2, 3), members=4)
        >>> predict(model, np.zeros((5, 2))).member_probs.shape
        (5, 4, 3)
    """
    check_ensemble(model)
    whole_number("batch_size", batch_size)
    place = place_of(model)
    options: dict[str, Any] = {"target": target, "memory_limit": memory_limit, **place}
    batches = open_inputs(X, batch_size, known=ColumnNames.of(model), **options)
    return _prediction(model, loss_of(model, loss), batches)


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
        data: inputs and targets, see :func:`batchensemble.fit`.
        loss: see :func:`predict`.
        target: the column or key of the targets.
        class_names: the classes in the order of their numbers, where the targets are text.
        memory_limit: bytes; larger files are streamed.
    """
    check_ensemble(model)
    found = loss_of(model, loss)
    batches = open_batches(
        data,
        PREDICTION_BATCH,
        target=target,
        class_names=class_names,
        memory_limit=memory_limit,
        read=found.read,
        numbers=not isinstance(found, (ClassLoss, Custom)),
        known=ColumnNames.of(model),
        **place_of(model),
    )
    seen: list[Tensor] = []

    def inputs_only() -> Iterator[Inputs]:
        for inputs, targets in batches:
            seen.append(parted(targets)[0].cpu())
            yield inputs

    prediction = _prediction(model, found, inputs_only())
    return prediction, torch.cat(seen).numpy()


def loss_of(model: Ensemble, loss: str | Loss | None = None) -> EnsembleLoss:
    """Return the loss that says what a model's outputs are."""
    if loss is not None:
        return as_loss(loss)
    return CrossEntropy() if model.loss is None else model.loss


def _prediction(model: Ensemble, loss: EnsembleLoss, batches: Iterable[Inputs]) -> AnyPrediction:
    way = reading(loss)
    after = model.calibrator if way.make is Prediction else None
    if after is not None and after.pooling == "before":
        after = None  # the outputs are calibrated already
    parts: list[Arrays] = []
    with evaluating(model), torch.no_grad():
        for inputs in batches:
            if parts:
                outputs = model(inputs)
            else:
                outputs = check_inputs_fit(model, inputs)
                way.check(outputs.shape)
            arrays = way.of(outputs)
            parts.append(arrays if after is None else (*arrays, after.of_mean(arrays[0])))
    if not parts:
        raise ValueError("there must be at least one example to predict, got none")
    return way.make(*(np.concatenate(each) for each in zip(*parts, strict=True)))
