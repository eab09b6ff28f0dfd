"""Scores and uncertainties of an ensemble on corrupted inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.data.tables.column_names import ColumnNames, encoded_inputs
from batchensemble.data.tables.columns import as_table
from batchensemble.ensembles import Ensemble
from batchensemble.metrics import score
from batchensemble.metrics.labels import checked_labels
from batchensemble.predictions import Prediction
from batchensemble.predictions.predict import predict

ExampleArray = Float[np.ndarray, "examples ..."]
Corruption = Callable[[ExampleArray, float, np.random.Generator], ExampleArray]
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
STREAM = 3  # data that were drawn with the same seed would otherwise be their own noise


@dataclass(frozen=True)
class Shifted:
    """The scores at one strength of a corruption.

    Attributes:
        corruption: name of the corruption.
        strength: strength in the unit of the corruption.
        accuracy: share of correct predictions.
        nll: negative log-likelihood of the ensemble's probabilities, nats.
        ece: expected calibration error.
        total, aleatoric, epistemic: mean uncertainties, nats.
    """

    corruption: str
    strength: float
    accuracy: float
    nll: float
    ece: float
    total: float
    aleatoric: float
    epistemic: float


def noise(X: ExampleArray, strength: float, rng: np.random.Generator) -> ExampleArray:
    """Add Gaussian noise of ``strength`` standard deviations.

    The standard deviations are those of each column of a table ``[examples, features]``, or of each
    channel (axis 1) of larger inputs such as images ``[examples, channels, height, width]``.
    """
    axes = (0, *range(2, X.ndim))
    deviation = X.std(axes, keepdims=True, dtype=np.float64)
    return (X + strength * deviation * rng.standard_normal(X.shape)).astype(X.dtype)


def dropout(X: ExampleArray, strength: float, rng: np.random.Generator) -> ExampleArray:
    """Replace each number by the mean of its column or channel, with probability 1 - 2^-strength.

    A strength of 1 replaces half of the numbers, 4 all but 6 %.
    """
    axes = (0, *range(2, X.ndim))
    lost = rng.random(X.shape) < 1 - 2.0**-strength
    return np.where(lost, X.mean(axes, keepdims=True, dtype=np.float64), X).astype(X.dtype)


def blur(X: ExampleArray, strength: float, rng: np.random.Generator) -> ExampleArray:
    """Blur images ``[examples, ..., height, width]`` by a Gaussian of ``strength`` pixels.

    Raises:
        ValueError: the inputs have fewer than three axes.
    """
    if X.ndim < 3:
        raise ValueError(
            f"blur takes images [examples, ..., height, width], got the shape {list(X.shape)}; "
            "use noise or dropout for tables"
        )
    return gaussian_filter(X, (0,) * (X.ndim - 2) + (strength, strength))


CORRUPTIONS: dict[str, Corruption] = {"noise": noise, "dropout": dropout, "blur": blur}


def under_shift(
    model: Ensemble,
    X: Any,
    y: Any,
    corruption: str | Corruption = "noise",
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> list[Shifted]:
    """Return the scores of an ensemble on inputs that are corrupted more and more.

    The uncertainty of a good model grows as fast as its error rate: its NLL then stays near that of
    a uniform guess (Ovadia et al. 2019, arXiv 1906.02530).

    Args:
        model: any ensemble of classifiers.
        X: held-out inputs, ``[examples, features]`` or images ``[examples, ..., height, width]``.
        y: their true classes, ``[examples]``.
        corruption: ``"noise"`` (the default), ``"dropout"``, ``"blur"``, or a function of the
            inputs, a strength and a NumPy generator that returns corrupted inputs.
        strengths: strengths of at least 0, in the unit of the corruption; 0 leaves the inputs as
            they are. By default 0, 0.5, 1, 2 and 4.
        seed: seed of the corruption, 0 by default; all strengths use the same random numbers.

    Returns:
        One row for each strength; ``pandas.DataFrame(rows)`` makes them a table.

    Raises:
        TypeError: the ensemble predicts no classes.
        ValueError: the inputs are not finite numbers, do not fit the network or the corruption, or
            a strength is below 0.

    Example:
        >>> import torch
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(torch.nn.Linear(2, 3), members=4)
        >>> rows = under_shift(model, np.eye(2), [0, 1], strengths=(0.0, 1.0))
        >>> [(row.corruption, row.strength) for row in rows]
        [('noise', 0.0), ('noise', 1.0)]
    """
    if isinstance(corruption, str):
        corrupt, name = CORRUPTIONS[one_of("corruption", corruption, CORRUPTIONS)], corruption
    else:
        corrupt, name = corruption, getattr(corruption, "__name__", "given")
    whole_number("seed", seed, at_least=0)
    table = as_table(X)
    if table is not None:
        known = ColumnNames.of(model)
        names = known.features_among(table.names, "X")
        X = encoded_inputs(table, names, np.float64, "X", known)
    inputs = _inputs(X)
    rows = []
    for strength in map(float, strengths):
        if not 0 <= strength < np.inf:
            raise ValueError(f"strengths must be finite and at least 0, got {strength}")
        rng = np.random.default_rng((seed, STREAM))
        changed = corrupt(inputs, strength, rng) if strength else inputs
        rows.append(_row(model, changed, y, name, strength))
    return rows


def _inputs(X: Any) -> ExampleArray:
    inputs = np.asarray(X)
    if inputs.ndim < 2 or not np.issubdtype(inputs.dtype, np.number):
        raise ValueError(
            "X must be numbers of the shape [examples, features] or [examples, ..., height, "
            f"width], got {inputs.dtype} of the shape {list(inputs.shape)}"
        )
    return inputs if np.issubdtype(inputs.dtype, np.floating) else inputs.astype(np.float32)


def _row(model: Ensemble, X: ExampleArray, y: Any, name: str, strength: float) -> Shifted:
    prediction = predict(model, X)
    if not isinstance(prediction, Prediction):
        raise TypeError(
            "under_shift takes ensembles that predict classes, got one that predicts "
            f"{type(prediction).__name__}; corrupt the inputs yourself and call evaluate"
        )
    scores = score(prediction, checked_labels(prediction, y))
    means = {
        kind: float(getattr(prediction, kind).mean())
        for kind in ("total", "aleatoric", "epistemic")
    }
    return Shifted(name, strength, scores["accuracy"], scores["nll"], scores["ece"], **means)
