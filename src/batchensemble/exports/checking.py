"""The check of a file: its outputs beside torch's, at batches of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.pytree import leaves
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.tiling import Arguments
from batchensemble.exports.member_graph import PREFERRED, output_name
from batchensemble.exports.prediction_graph import AnswerRule
from batchensemble.layers.modes import evaluating
from batchensemble.losses import EnsembleLoss
from batchensemble.predictions import AnyPrediction, Prediction, RegressionPrediction
from batchensemble.predictions.from_outputs import reading

CHECKED_BATCHES = (1, 3, 64)
TOLERANCE = 1e-4  # rounding of deep networks in float32; most differ by 1e-6

Wanted = dict[str, np.ndarray]


class ExportError(RuntimeError):
    """A file could not be made of a model, or it gives other numbers than the model."""


def torch_outputs(model: Ensemble, arguments: Arguments) -> Any:
    """Return what the ensemble itself gives."""
    args, kwargs = arguments.split()
    with evaluating(model), torch.no_grad():
        return model(*args, **kwargs)


def torch_prediction(model: Ensemble, loss: EnsembleLoss, outputs: Any) -> AnyPrediction:
    """Return the prediction that :func:`batchensemble.predict` makes of the outputs, in float64."""
    if not isinstance(outputs, Tensor):
        found = dict(leaves(outputs))
        known = [found[(name,)] for name in PREFERRED if (name,) in found]
        tensors = [each for each in found.values() if isinstance(each, Tensor)]
        outputs = (known or tensors)[0]
    read = reading(loss)
    read.check(outputs.shape)
    arrays = read.of(outputs)
    after = model.calibrator if read.make is Prediction else None
    if after is not None and after.pooling == "after":
        arrays = (*arrays, after.of_mean(arrays[0]))
    return read.make(*arrays)


def expected_values(
    prediction: Any, names: Sequence[str], levels: Sequence[float], rule: AnswerRule | None
) -> Wanted:
    """Return what the outputs of a file must be, by name."""
    numbers = isinstance(prediction, RegressionPrediction)
    found: Wanted = {}
    for name in names:
        if name == "mean":
            found[name] = prediction.mean if numbers else prediction.probs
        elif name == "members":
            found[name] = prediction.member_means if numbers else prediction.member_probs
        elif name == "quantiles":
            found[name] = np.stack([prediction.quantile(level) for level in levels], 1)
        elif name == "label":
            found[name] = prediction.labels
        elif name == "answer" and rule is not None:
            found[name] = score_of(prediction, rule) < rule.value
        else:
            found[name] = getattr(prediction, name)
    return found


def score_of(prediction: Any, rule: AnswerRule) -> np.ndarray:
    """Return the uncertainty that a threshold is on."""
    score: np.ndarray = getattr(prediction, rule.by)
    return 1 - score if rule.by == "confidence" else score


def differences(
    given: Mapping[str, np.ndarray], wanted: Wanted, prediction: Any, rule: AnswerRule | None
) -> dict[str, float]:
    """Return the largest difference of each output.

    Whole numbers and answers differ where they are not equal, unless two classes or the threshold
    are so close that rounding decides.

    Raises:
        ExportError: an output has another shape.
    """
    found = {}
    for name, expected in wanted.items():
        value = given[name]
        if value.shape != expected.shape:
            raise ExportError(
                f"the file gives {name} of the shape {list(value.shape)}, torch "
                f"{list(expected.shape)}"
            )
        if expected.dtype.kind in "ib":
            close = _decided_by_rounding(name, prediction, rule)
            wrong = (value.astype(np.int64) != expected.astype(np.int64)) & ~close
            found[name] = float(wrong.any())
            continue
        scale = 1.0
        if isinstance(prediction, RegressionPrediction) or prediction is None:
            scale = _size_of(name, expected, prediction)
        with np.errstate(invalid="ignore"):
            found[name] = float(np.abs(value.astype(np.float64) - expected).max() / scale)
        if np.isnan(found[name]):
            found[name] = np.inf
    return found


def _decided_by_rounding(name: str, prediction: Any, rule: AnswerRule | None) -> Any:
    if prediction is None:
        return False
    if name == "answer" and rule is not None:
        score = score_of(prediction, rule)
        size = max(1e-30, float(np.abs(score).max()), abs(rule.value) if score.size else 0.0)
        with np.errstate(invalid="ignore"):
            close: np.ndarray = np.abs(score - rule.value) <= TOLERANCE * min(size, 1e30)
        return close
    if isinstance(prediction, Prediction):
        ordered = np.sort(prediction.probs, 1)
        near: np.ndarray = ordered[:, -1] - ordered[:, -2] <= TOLERANCE
        return near
    even: np.ndarray = np.abs(prediction.probs - 0.5) <= TOLERANCE
    return even


def _size_of(name: str, expected: np.ndarray, prediction: Any) -> float:
    """Return the size of numbers, in units of which their differences are."""
    sizes = [np.abs(expected).max(initial=0.0)]
    if prediction is not None:
        total = prediction.total.max(initial=0.0)
        is_variance = name in ("total", "aleatoric", "epistemic", "member_variances")
        sizes.append(total if is_variance else np.sqrt(total))
    return max(1e-30, *map(float, sizes))


def raw_values(outputs: Any, names: Sequence[str]) -> Wanted:
    """Return the tensors among the outputs of an ensemble that are per example, by name."""
    found = {output_name(path): leaf for path, leaf in leaves(outputs)}
    wanted = {name: found[name] for name in names}
    return {
        name: (leaf.double() if leaf.is_floating_point() else leaf).cpu().numpy()
        for name, leaf in wanted.items()
    }


def refuse_differences(found: Mapping[int, Mapping[str, float]], tolerance: float) -> None:
    """Raise :class:`ExportError` if an output differs by more than the tolerance."""
    for batch, of_batch in found.items():
        for name, difference in of_batch.items():
            if not difference <= tolerance:
                raise ExportError(
                    f"the file gives another {name} than torch at a batch of {batch}: the largest "
                    f"difference is {difference:.1e}, allowed are {tolerance:.0e} (tolerance); no "
                    "file is left"
                )
