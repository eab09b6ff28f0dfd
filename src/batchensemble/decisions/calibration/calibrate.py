"""``calibrate``: from a trained ensemble and data it has not seen to one that is calibrated."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from batchensemble.core.arguments import one_of
from batchensemble.data.batches import PREDICTION_BATCH
from batchensemble.data.sources import MEMORY_LIMIT, open_batches
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.decisions.calibration.fitting import FITS, nll
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.calibrators import Calibrator, Pooling
from batchensemble.ensembles.checks import check_ensemble, check_inputs_fit, place_of
from batchensemble.layers.modes import evaluating
from batchensemble.losses import CrossEntropy
from batchensemble.losses.targets import ONE_HOT, parted

CalibrationMethod = Literal["temperature", "vector", "platt", "isotonic"]
Model = TypeVar("Model", bound=Ensemble)

LEAST_FOR_ISOTONIC = 100  # below it has a step for every few examples, and follows their noise


def calibrate(
    model: Model,
    data: Any,
    *,
    method: CalibrationMethod = "temperature",
    pooling: Pooling = "before",
    per_member: bool = False,
    target: str | None = None,
    class_names: Sequence[Any] = (),
    memory_limit: int = MEMORY_LIMIT,
) -> Model:
    """Return a copy of the model whose probabilities are calibrated on these data.

    Give data that the model was not trained on, and score it on yet others: a network is surer
    of its training examples than of any others, so what is fitted to them leaves it too sure,
    and scores on the calibration data are too good. The data of the last training are known
    again, also by a saved model, and warned of; a part of them, another order, or what a data
    loader yields is not.

    Before averaging, each member's logits are scaled: a call of the copy returns scaled logits,
    and the uncertainties are of scaled members. The temperature and the weights of ``"vector"``
    are those with which the members' *mean* is most likely; calibrating each member alone would
    make the mean too unsure. After averaging, the members stay as they are, and ``predict``
    puts the ensemble's probabilities through the calibrator. ``benchmarks/claims/calibration.py``
    compares the two.

    ``member(i)`` of the copy computes what the copy computes for that member: with a calibrator
    that pools before averaging it is a network whose outputs are calibrated, by a forward hook, so
    that its weights and names stay the user's own; with one that pools after, which changes no
    member, the member as it was. ``uncalibrated().member(i)`` is without. ``select`` keeps one that
    pools before averaging; one that pools after belongs to the mean of all and cannot be kept.
    To train on, take ``uncalibrated()``, and calibrate again after it.

    Args:
        model: trained on other data; it stays as it is.
        data: inputs and class numbers, in any form that :func:`batchensemble.fit` takes.
        method: ``"temperature"``, one number, which changes no predicted class where it is
            applied after averaging; ``"vector"``, a weight and a bias a class; ``"platt"``, a
            sigmoid a class; ``"isotonic"``, a rising function a class. The last two fit each
            class against the others, before averaging to the members' own probabilities, and
            are then normalised; only the first two are never worse than no calibration, on the
            data given.
        pooling: ``"before"`` or ``"after"`` averaging.
        per_member: whether each member has numbers of its own, before averaging.
        target: the column or key of the labels.
        class_names: the classes in the order of their numbers, where the labels are text; by
            default those of the training.
        memory_limit: bytes; larger files are streamed, though all outputs are kept.

    Returns:
        A model of the same class. A calibrator that the model has already is replaced.

    Raises:
        TypeError: the data are of the wrong type.
        ValueError: an argument is out of range; the data are empty, do not fit the network,
            hold one class only, lack a class that the method needs, or are too few for
            ``"isotonic"``; the network's outputs are no logits of classes, or not finite.

    Example:
        >>> import torch
        >>> from batchensemble import BatchEnsemble, calibrate, fit, predict
    >>> from torch import nn
        >>> X = torch.randn(600, 2)
        >>> y = (X[:, 0] + torch.randn(600) > 0).long()
        >>> model = BatchEnsemble(nn.Linear(2, 2), members=4)
        >>> history = fit(model, (X[:300], y[:300]), lr=0.03)
        >>> calibrated = calibrate(model, (X[300:], y[300:]), pooling="after")
        >>> predict(calibrated, X).together.shape, model.calibrator
        ((600, 2), None)
    """
    check_ensemble(model)
    one_of("method", method, FITS)
    one_of("pooling", pooling, ("before", "after"))
    if per_member and pooling == "after":
        raise ValueError(
            "per_member=True gives each member numbers of its own, which only pooling='before' "
            "can: after the members' mean there are no members"
        )
    logits, labels = _outputs(model, data, target, class_names, memory_limit)
    _check(logits, labels, method)
    fitted = FITS[method](logits, labels, pooling, per_member=per_member)
    scaling = method in ("temperature", "vector")
    if scaling and nll(fitted, logits, labels) > nll(None, logits, labels):
        # What the search found is no better than float32 can tell.
        fitted = _identity(fitted)
    result = model.uncalibrated()
    result.attach(fitted.to(place_of(model)["device"]))
    return result


def _identity(fitted: Calibrator) -> Calibrator:
    """Return a temperature, or weights, of 1."""
    same = copy.deepcopy(fitted)
    for name, value in same.named_buffers():
        value.fill_(0.0 if name == "bias" else 1.0)
    return same


def _outputs(
    model: Ensemble,
    data: Any,
    target: str | None,
    class_names: Sequence[Any],
    memory_limit: int,
) -> tuple[Tensor, Tensor]:
    """Return the members' logits ``[entries, members, classes]``, float64, and the classes.

    Entries are examples, or their tokens or pixels that have a class.
    """
    loss = CrossEntropy() if model.loss is None else model.loss
    if not isinstance(loss, CrossEntropy):
        raise ValueError(
            f"calibrate takes logits of classes, trained with the cross-entropy, and this model "
            f"was trained with {loss}"
        )
    batches = open_batches(
        data,
        PREDICTION_BATCH,
        target=target,
        class_names=class_names,
        memory_limit=memory_limit,
        read=loss.read,
        known=ColumnNames.of(model),
        **place_of(model),
    )
    if model.trained_on is not None and batches.fingerprint == model.trained_on:
        warnings.warn(
            "the model was trained on these data, of which it is surer than of any others, so that "
            "what is fitted to them leaves it too sure; calibrate on examples held out from its "
            "training",
            stacklevel=3,
        )
    plain = model.uncalibrated()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluating(plain), torch.no_grad():
        for inputs, targets in batches:
            outputs = plain(inputs) if logits else check_inputs_fit(plain, inputs)
            if not isinstance(outputs, Tensor) or outputs.dim() < 3 or outputs.shape[2] < 2:
                got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
                raise ValueError(
                    "calibrate takes outputs of shape [batch, members, classes] with at least 2 "
                    f"classes, the network gives {got}"
                )
            classes = parted(targets)[0].cpu()
            if outputs.dim() == 3 and classes.shape == (len(outputs), 1):  # a column
                classes = classes[:, 0]
            if classes.shape != (len(outputs), *outputs.shape[3:]):
                cure = f"; {ONE_HOT}" if classes.shape[1:] == outputs.shape[2:] else ""
                raise ValueError(
                    f"labels must have the shape {[len(outputs), *outputs.shape[3:]]}, one for "
                    f"each class that is predicted, got {list(classes.shape)}{cure}"
                )
            entries = outputs.movedim((1, 2), (-2, -1)).flatten(0, -3).cpu().double()
            classes = classes.flatten()
            if loss.ignore_index is not None:
                known = classes != loss.ignore_index
                entries, classes = entries[known], classes[known]
            logits.append(entries)
            labels.append(classes)
    if not sum(map(len, logits)):
        raise ValueError("there must be at least one example to calibrate on, got none")
    return torch.cat(logits), torch.cat(labels)


def _check(logits: Tensor, labels: Tensor, method: str) -> None:
    """Raise ``ValueError`` where nothing can be fitted to outputs and labels."""
    finite = logits.isfinite().flatten(1).all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        value = logits[row][~logits[row].isfinite()][0].item()
        raise ValueError(
            f"the network's outputs must be finite to be calibrated, got {value} in row {row + 1}"
        )
    classes = logits.shape[2]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    counts = labels.bincount(minlength=classes)
    if (counts > 0).sum() == 1:
        raise ValueError(
            f"the calibration data must hold more than one class, got {len(labels)} examples of "
            f"class {int(counts.argmax())} alone"
        )
    if method != "temperature" and not counts.all():
        missing = int((counts == 0).nonzero()[0])
        raise ValueError(
            f"method={method!r} needs examples of every class, and there is none of class "
            f"{missing}; give more data, or use method='temperature'"
        )
    if method == "isotonic" and len(labels) < LEAST_FOR_ISOTONIC:
        raise ValueError(
            f"method='isotonic' needs at least {LEAST_FOR_ISOTONIC} examples, got {len(labels)}: "
            "with fewer it follows their noise; give more data, or use method='temperature'"
        )
