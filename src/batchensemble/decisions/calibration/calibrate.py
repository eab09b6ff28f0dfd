"""``calibrate``: calibrate a trained ensemble on held-out data."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from batchensemble.core.arguments import one_of
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.decisions.calibration.fitting import FITS, nll
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.calibrators import Calibrator, Pooling
from batchensemble.ensembles.checks import check_ensemble, check_inputs_fit, place_of
from batchensemble.layers.modes import evaluating
from batchensemble.losses import CrossEntropy
from batchensemble.losses.targets import ONE_HOT, parted
from batchensemble.predictions.predict import open_pairs

CalibrationMethod = Literal["temperature", "vector", "platt", "isotonic"]
Model = TypeVar("Model", bound=Ensemble)

LEAST_FOR_ISOTONIC = 100  # with fewer examples it follows their noise


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
    """Return a calibrated copy of the model.

    Use data that the model was not trained on, and score it on other data again: a network is
    overconfident on its training examples, so a calibrator fitted on them does not help, and scores
    on the calibration data are too good. The data of the last training are recognised, also by a
    saved model, with a warning; a part of them, another order, or the examples of a data loader are
    not.

    With ``pooling="before"``, each member's logits are scaled: a call of the copy returns scaled
    logits, and the uncertainties are those of the scaled members. The temperature and the weights
    of ``"vector"`` maximise the likelihood of the members' *mean*; calibrating each member
    separately would make the mean underconfident. With ``pooling="after"``, the members stay as
    they are, and ``predict`` applies the calibrator to the ensemble's probabilities.
    ``benchmarks/claims/calibration.py`` compares the two.

    ``member(i)`` of the copy computes what the copy computes for that member: with
    ``pooling="before"`` a network whose outputs are calibrated by a forward hook, so that its
    weights and names stay the user's own; with ``pooling="after"``, which changes no member, the
    member as it was. ``uncalibrated().member(i)`` is without a calibrator. ``select`` keeps a
    calibrator that pools before averaging; one that pools after is for the mean of all members and
    cannot be kept. To continue training, use ``uncalibrated()``, and calibrate again afterwards.

    Args:
        model: an ensemble trained on other data; it is not changed.
        data: inputs and class numbers, in any form that :func:`batchensemble.fit` takes.
        method: ``"temperature"`` (the default), one number, which changes no predicted class if
            it is applied after averaging; ``"vector"``, a weight and a bias for each class;
            ``"platt"``, a sigmoid for each class; ``"isotonic"``, a monotonic function for each
            class. The last two fit each class against the rest, before averaging on the members'
            own probabilities, and normalise; only the first two are never worse than no
            calibration on the given data.
        pooling: ``"before"`` (the default) or ``"after"`` averaging.
        per_member: whether each member has its own parameters, with ``pooling="before"``; false by
            default.
        target: name of the column or key of the labels; by default that of the training.
        class_names: the classes in the order of their numbers, if the labels are text; by default
            those of the training.
        memory_limit: size in bytes above which files are streamed; all outputs are kept in memory.

    Returns:
        A model of the same class. An existing calibrator is replaced.

    Raises:
        TypeError: the data have the wrong type.
        ValueError: an argument is out of range; the data are empty, do not fit the network, have
            only one class, lack a class that the method needs, or are too few for ``"isotonic"``;
            the network's outputs are not logits of classes, or not finite.

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
            "per_member=True needs pooling='before': after the members' mean there are no members"
        )
    logits, labels = _outputs(model, data, target, class_names, memory_limit)
    _check(logits, labels, method)
    fitted = FITS[method](logits, labels, pooling, per_member=per_member)
    scaling = method in ("temperature", "vector")
    if scaling and nll(fitted, logits, labels) > nll(None, logits, labels):
        # The search found nothing better within the precision of float32.
        fitted = _identity(fitted)
    result = model.uncalibrated()
    result.attach(fitted.to(place_of(model)["device"]))
    return result


def _identity(fitted: Calibrator) -> Calibrator:
    """Return the same calibrator with a temperature, or weights, of 1."""
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

    Entries are examples, or their tokens or pixels with a class.
    """
    loss = CrossEntropy() if model.loss is None else model.loss
    if not isinstance(loss, CrossEntropy):
        raise ValueError(
            f"calibrate takes logits of classes, trained with the cross-entropy, and this model "
            f"was trained with {loss}"
        )
    batches = open_pairs(
        model, loss, data, target=target, class_names=class_names, memory_limit=memory_limit
    )
    if model.trained_on is not None and batches.fingerprint == model.trained_on:
        warnings.warn(
            "the model was trained on these data, on which it is overconfident, so a calibrator "
            "fitted on them does not help; calibrate on examples held out from its training",
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
                    f"each predicted class, got {list(classes.shape)}{cure}"
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
    """Raise ``ValueError`` if a calibrator cannot be fitted to outputs and labels."""
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
            f"the calibration data must have more than one class, got {len(labels)} examples of "
            f"class {int(counts.argmax())} only"
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
