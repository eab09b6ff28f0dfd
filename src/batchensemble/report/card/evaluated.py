"""The scores on a model card, with their intervals, and whether the model is calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import binom, binomtest

from batchensemble.comparison.summary import CLASSIFICATION, REGRESSION
from batchensemble.core.printed_tables import significant
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.ensembles import Ensemble
from batchensemble.metrics import Scores, ece_interval, score
from batchensemble.metrics.bootstrap import LEVEL, bootstrap, middle
from batchensemble.metrics.by_example import contributions
from batchensemble.metrics.by_name import HIGHER_IS_BETTER
from batchensemble.metrics.constant import ConstantNumber
from batchensemble.metrics.members.one_model import is_one_model
from batchensemble.metrics.scores import entries, name_classes
from batchensemble.predictions import AnyPrediction, Prediction
from batchensemble.predictions.predict import model_loss, open_pairs, predict_pairs
from batchensemble.report.card.escaping import shortened
from batchensemble.report.sections.calibrated import error_by_chance

MOST_CLASSES_SHOWN = 20
TITLES = {each.key: (each.title, each.unit) for each in (*REGRESSION, *CLASSIFICATION)}
IN_TARGET_UNIT = ("rmse", "mae", "crps", "pinball", "width", "aleatoric", "epistemic")


@dataclass(frozen=True)
class MeasuredScores:
    """The scores of a model on some examples.

    Attributes:
        scores: the scores.
        examples: number of examples; ``None`` if it is not known.
        intervals: 95 % intervals of some scores, by name.
        calibration: a sentence with what the examples tell of its calibration; empty if nothing.
        one_model: what tells that the members are practically one network; empty if nothing does.
        trained_on: whether these are the examples that the model was trained on.
    """

    scores: Scores
    examples: int | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calibration: str = ""
    one_model: str = ""
    trained_on: bool = False


def evaluated_on(model: Ensemble, data: Any) -> MeasuredScores:
    """Return the scores of a model on data, with intervals over the examples.

    Args:
        model: any ensemble.
        data: inputs and targets, as :func:`batchensemble.evaluate` takes them; or its scores.

    Raises:
        TypeError, ValueError: the data do not fit the model.
    """
    if isinstance(data, Scores):
        return MeasuredScores(data)
    prediction, targets = predict_pairs(model, data)
    found = measured(model, prediction, targets, model.class_names)
    options: dict[str, Any] = {"target": None, "class_names": (), "memory_limit": MEMORY_LIMIT}
    batches = open_pairs(model, model_loss(model), data, **options)
    known = model.trained_on is not None and batches.fingerprint == model.trained_on
    return replace(found, trained_on=known)


def measured(
    model: Ensemble, prediction: AnyPrediction, targets: np.ndarray, class_names: Sequence[str] = ()
) -> MeasuredScores:
    """Return the scores of a prediction, with intervals over the examples.

    Args:
        model: the ensemble that predicted.
        prediction: its prediction.
        targets: the true classes or numbers.
        class_names: the classes in the order of their numbers, if they have names.

    Raises:
        TypeError, ValueError: the targets do not fit the prediction.
    """
    loss = model_loss(model)
    ignored = getattr(loss, "ignore_index", None)
    constant = ConstantNumber.of_training(loss)
    scores, examples = (
        score(prediction, targets, ignore_index=ignored, constant=constant),
        len(targets),
    )
    name_classes(scores, class_names)
    if isinstance(prediction, Prediction) and prediction.member_probs.ndim == 3:
        prediction, targets = entries(prediction, targets, ignored)
    return MeasuredScores(
        scores,
        examples,
        intervals_of(scores, prediction, targets),
        calibration_of(scores, prediction, targets),
        _one_model(prediction, targets),
    )


def intervals_of(
    scores: Scores, prediction: AnyPrediction, targets: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals over the examples of scores that have one, by name.

    Those of shares are exact, the others are bootstrapped.

    Args:
        scores: of the prediction.
        prediction: of one class or one number for each example; others have no intervals.
        targets: the true classes or numbers.

    Example:
        >>> sure = Prediction(np.tile([[[0.9, 0.1]]], (100, 1, 1)))
        >>> labels = np.repeat([0, 1], [90, 10])
        >>> low, high = intervals_of(score(sure, labels), sure, labels)["accuracy"]
        >>> 0.8 < low < 0.9 < high < 0.97
        True
    """
    if isinstance(prediction, Prediction) and not _one_an_example(prediction, targets):
        return {}
    names = [name for name in scores if name != "ece"]
    parts = {name: contributions(name, [prediction], targets) for name in names}
    known = {name: each for name, each in parts.items() if each is not None}
    found: dict[str, tuple[float, float]] = {}
    if known:
        drawn = bootstrap(list(known.values()))
        found = {name: middle(each, LEVEL) for name, each in zip(known, drawn, strict=True)}
    # A bootstrap of a share near 0 or 1 is too narrow, and of one at the end has no width.
    for name in ("accuracy", "coverage"):
        if name in scores and len(targets) and targets.ndim == 1 and not np.isnan(targets).any():
            found[name] = share_interval(scores[name], len(targets))
    if "ece" in scores and isinstance(prediction, Prediction):
        error = ece_interval(prediction, targets)
        found["ece"] = error.low, error.high
    return found


def share_interval(share: float, examples: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of examples (Clopper and Pearson 1934).

    Example:
        >>> [round(end, 4) for end in share_interval(1.0, 60)]
        [0.9404, 1.0]
    """
    found = binomtest(round(share * examples), examples).proportion_ci(LEVEL, "exact")
    return float(found.low), float(found.high)


def calibration_of(scores: Scores, prediction: AnyPrediction, targets: np.ndarray) -> str:
    """Return what examples tell of a model's calibration, in a sentence; empty if nothing.

    Args:
        scores: of the prediction.
        prediction: of any ensemble.
        targets: the true classes or numbers.
    """
    if isinstance(prediction, Prediction):
        if not _one_an_example(prediction, targets):
            return ""
        error, chance = scores["ece"], error_by_chance(prediction)
        found = "No miscalibration" if error <= chance else "Miscalibration"
        return (
            f"{found} detected: the ECE is {error:.4f}, and that of a calibrated model with the "
            f"same confidences is up to {chance:.4f} on as many examples (95 %)."
        )
    if "coverage" not in scores or np.isnan(targets).any() or targets.ndim > 1:
        return ""
    nominal, held = float(scores["coverage_meant"]), float(scores["coverage"])
    low, high = (each / len(targets) for each in binom.interval(LEVEL, len(targets), nominal))
    found = "No miscalibration"
    if not low <= held <= high:
        found = "Too narrow intervals" if held < nominal else "Too wide intervals"
    return (
        f"{found} detected: {nominal:.0%} intervals contain {held:.1%} of the targets, and those "
        f"of a calibrated model {low:.1%} to {high:.1%} of as many (95 %)."
    )


def score_rows(found: MeasuredScores) -> list[dict[str, str]]:
    """Return the rows of the table of scores, as text.

    Args:
        found: the scores.

    Example:
        >>> score_rows(MeasuredScores(Scores({"nll": 0.5, "constant_nll": 0.7})))
        [{'score': 'NLL ↓ (nats)', 'value': '0.5000', 'interval': '', 'constant': '0.7000'}]
    """
    rows = []
    for name, value in found.scores.items():
        if name.startswith("constant_") or name == "coverage_meant" or isinstance(value, list):
            continue
        if value is None or value != value:
            continue
        low_high = found.intervals.get(name)
        beside = found.scores.get(f"constant_{name}")
        rows.append(
            {
                "score": _title(name, found.scores),
                "value": significant(value),
                "interval": "" if low_high is None else " to ".join(map(significant, low_high)),
                "constant": "" if beside is None else significant(beside),
            }
        )
    return rows


def class_rows(scores: Scores) -> list[dict[str, str]]:
    """Return for each class its share, recall and precision, as text; none for many classes."""
    found = scores.confusion
    if found is None or len(found) > MOST_CLASSES_SHOWN:
        return []
    columns = zip(found.names, found.shares, found.recall, found.precision, strict=True)
    return [
        {
            "name": shortened(name),
            "share": f"{share:.1%}",
            "recall": "-" if recall != recall else f"{recall:.1%}",
            "precision": "-" if precision != precision else f"{precision:.1%}",
        }
        for name, share, recall, precision in columns
    ]


def _one_model(prediction: AnyPrediction, targets: np.ndarray) -> str:
    if not isinstance(prediction, Prediction) or prediction.members < 2:
        return ""
    if not _one_an_example(prediction, targets):
        return ""
    found = is_one_model(prediction, targets)
    return found.verdict.partition(": ")[2] if found.answer == "one model" else ""


def _title(name: str, scores: Mapping[str, Any]) -> str:
    title, unit = TITLES.get(name, (name.replace("_", " ").capitalize(), ""))
    if name in ("coverage", "width") and "coverage_meant" in scores:
        title = f"{name.capitalize()} ({scores['coverage_meant']:.0%})"
    if name in IN_TARGET_UNIT:
        unit = "unit of the target"
    arrow = {True: " ↑", False: " ↓"}.get(HIGHER_IS_BETTER.get(name, ...), "")  # type: ignore[arg-type]
    return f"{title}{arrow}{f' ({unit})' if unit else ''}"


def _one_an_example(prediction: Prediction, targets: np.ndarray) -> bool:
    return prediction.member_probs.ndim == 3 and targets.ndim == 1
