"""``decision.json``: when a saved model answers, and prediction sets or intervals.

``decide`` writes it into the model's folder, and ``predict`` adds its columns to each row.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.core.arguments import between, fraction, one_of, positive_number, whole_number
from batchensemble.core.atomic_files import write_whole
from batchensemble.core.strict_json import brief, read_json
from batchensemble.decisions import ConformalIntervals, ConformalSets, Intervals, Threshold
from batchensemble.decisions.conformal.intervals import INTERVAL_METHODS
from batchensemble.decisions.uncertainty_score import UNCERTAINTIES
from batchensemble.predictions import AnyPrediction, Prediction, RegressionPrediction

DECISION = "decision.json"
DECISION_FORMAT = 1
BETWEEN = " | "  # separator of the classes of a set, in CSV


@dataclass(frozen=True)
class DecisionCheck:
    """How a decision does on held-out examples that it was not fitted on.

    Attributes:
        examples: number of these examples.
        answered: share of them that is answered; ``None`` without a threshold.
        risk: share of the answered ones that is wrong; ``None`` without an answered one.
        covered: share of the sets or intervals that contain the true value.
        mean_size: mean number of classes in a set, or mean width of an interval in the target's
            unit.
    """

    examples: int
    answered: float | None
    risk: float | None
    covered: float
    mean_size: float

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DecisionCheck:
        """Return the check from a dictionary, as read from JSON.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or not valid.
        """
        shares = {
            name: None if content[name] is None else fraction(name, content[name])
            for name in ("answered", "risk")
        }
        return cls(
            _whole(content["examples"]),
            shares["answered"],
            shares["risk"],
            fraction("covered", content["covered"]),
            _or_infinite(content["mean_size"]),
        )


@dataclass(frozen=True)
class Decision:
    """A threshold, and prediction sets or intervals, fitted on held-out examples.

    Attributes:
        model: SHA-256 of the weights that the decision is for.
        data: description of the examples that it was fitted on.
        examples: number of these examples.
        threshold: the threshold on the uncertainty; ``None`` for numbers without a tolerance.
        sets: the prediction sets; ``None`` for numbers.
        intervals: the intervals; ``None`` for classes.
        mean_size: mean number of classes in a set, or mean width of an interval in the target's
            unit.
        share_of_one: share of the sets with one class; ``None`` for numbers.
        notes: sentences on why a guarantee may not hold exactly.
        check: how it does on other held-out examples; ``None``: there are none.
    """

    model: str
    data: str
    examples: int
    threshold: Threshold | None
    sets: ConformalSets | None
    intervals: ConformalIntervals | None
    mean_size: float
    share_of_one: float | None = None
    notes: tuple[str, ...] = ()
    check: DecisionCheck | None = None

    @property
    def names(self) -> list[str]:
        """The columns that ``predict`` adds."""
        answer = [] if self.threshold is None else ["answer"]
        return [*answer, *(["conformal_lower", "conformal_upper"] if self.intervals else ["set"])]

    def columns(
        self, prediction: AnyPrediction, class_names: Sequence[str] = (), *, lists: bool = False
    ) -> list[Any]:
        """Return the values of these columns for some rows.

        Args:
            prediction: the model's prediction on the rows.
            class_names: the classes in the order of their numbers.
            lists: whether sets are lists of names; by default they are text.
        """
        assert isinstance(prediction, (Prediction, RegressionPrediction))
        answer = [] if self.threshold is None else [self.threshold.accepts(prediction)]
        if self.intervals is not None and isinstance(prediction, RegressionPrediction):
            found: Intervals = self.intervals(prediction)
            return [*answer, found.lower, found.upper]
        assert self.sets is not None
        assert isinstance(prediction, Prediction)
        return [*answer, _named(self.sets(prediction).contains, class_names, lists)]

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as a dictionary for JSON; an infinite width or score is ``None``."""
        threshold, sets, intervals = self.threshold, self.sets, self.intervals
        return {
            "format": DECISION_FORMAT,
            "model": self.model,
            "data": self.data,
            "examples": self.examples,
            "notes": list(self.notes),
            "threshold": None if threshold is None else _threshold_to_dict(threshold),
            "sets": None
            if sets is None or sets.thresholds_ is None
            else {
                "method": sets.method,
                "confidence": sets.confidence,
                "highest_score": _finite(float(sets.thresholds_.max())),
                **(
                    {"highest_scores": [_finite(each) for each in sets.thresholds_.tolist()]}
                    if sets.by_class
                    else {}
                ),
                "mean_size": self.mean_size,
                "share_of_one": self.share_of_one,
            },
            "intervals": None
            if intervals is None
            else {
                "method": intervals.method_,
                "confidence": intervals.confidence,
                "quantile": _finite(intervals.quantile_),
                "mean_width": _finite(self.mean_size),
            },
            "check": None
            if self.check is None
            else {**asdict(self.check), "mean_size": _finite(self.check.mean_size)},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], classes: int) -> Decision:
        """Return the decision from what :meth:`to_dict` returned.

        Args:
            content: the dictionary, as read from JSON.
            classes: number of classes of the model; 0 for numbers.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or not valid.
        """
        threshold, sets, intervals = (content[key] for key in ("threshold", "sets", "intervals"))
        if (sets is None) != (classes == 0) or (intervals is None) != (classes > 0):
            raise ValueError("it is of another kind of model")
        found = sets or intervals
        return cls(
            _text(content["model"]),
            _text(content["data"]),
            _whole(content["examples"]),
            None
            if threshold is None
            else _threshold_from_dict(threshold, _whole(content["examples"])),
            None if sets is None else _sets_from_dict(sets, classes),
            None if intervals is None else _intervals_from_dict(intervals),
            _or_infinite(found["mean_size" if sets else "mean_width"]),
            None if sets is None else fraction("share_of_one", sets["share_of_one"]),
            _texts(content["notes"]),
            # Earlier versions had no other examples.
            None if content.get("check") is None else DecisionCheck.from_dict(content["check"]),
        )

    @property
    def sha256(self) -> str:
        """A checksum of the decision."""
        return hashlib.sha256(json.dumps(self.to_dict()).encode()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Write the decision into the model's folder, atomically, and return its path.

        Raises:
            WriteError: it cannot be written; an existing file stays.
        """
        path = folder / DECISION
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(path, text.encode("utf-8", "replace") + b"\n")
        return path


def read_decision(folder: ModelFolder) -> Decision | None:
    """Return the decision in a model's folder; ``None`` if there is none.

    Raises:
        ValueError: the file is damaged, or for other weights than the folder has.
    """
    path = folder.path / DECISION
    if not path.exists():
        return None
    again = f"run batchensemble decide {folder.path} again, or delete it"
    try:
        found = read_json(path)
        if found["format"] != DECISION_FORMAT:
            raise ValueError(
                f"it has the format {brief(found['format'])}, expected {DECISION_FORMAT}"
            )
        decision = Decision.from_dict(found, len(folder.columns.class_names))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error!r}); {again}") from None
    if decision.model != folder.config["sha256"]:
        raise ValueError(f"{path} is for other weights than {folder.path} has now; {again}")
    return decision


def _named(contains: np.ndarray, class_names: Sequence[str], lists: bool) -> np.ndarray:
    """Return the names in each set, as a list or as text.

    Equal sets are converted once. In text, a backslash or bar in a name gets a backslash before it,
    so that the names can be separated again.
    """
    escaped = [name.replace("\\", "\\\\").replace("|", "\\|") for name in class_names]
    known: dict[bytes, Any] = {}
    found = np.empty(len(contains), dtype=object)
    for row, key in enumerate(map(bytes, np.packbits(contains, axis=1))):
        if key not in known:
            members = np.flatnonzero(contains[row]).tolist()
            known[key] = (
                [class_names[each] for each in members]
                if lists
                else BETWEEN.join(escaped[each] for each in members)
            )
        found[row] = known[key]
    return found


def _threshold_to_dict(found: Threshold) -> dict[str, Any]:
    return {
        "by": found.by,
        "answers": "none" if not found.found else "some" if math.isfinite(found.value) else "all",
        "below": _finite(found.value),
        "coverage": found.coverage,
        "risk": _finite(found.risk),
        "bound": found.bound,
        "target": found.target,
        "confidence": found.confidence,
        "tolerance": found.tolerance,
    }


def _threshold_from_dict(content: Mapping[str, Any], examples: int) -> Threshold:
    values = {"none": -math.inf, "all": math.inf}
    answers, risk, tolerance = content["answers"], content["risk"], content["tolerance"]
    one_of("answers", answers, (*values, "some"))
    return Threshold(
        by=one_of("by", content["by"], (*UNCERTAINTIES, "given")),
        value=values[answers] if answers in values else _number(content["below"]),
        coverage=fraction("coverage", content["coverage"]),
        risk=math.nan if risk is None else fraction("risk", risk),
        bound=fraction("bound", content["bound"]),
        target=between("target", content["target"], 0, 1),
        confidence=between("confidence", content["confidence"], 0, 1),
        examples=examples,
        tolerance=None if tolerance is None else positive_number("tolerance", tolerance),
    )


def _sets_from_dict(content: Mapping[str, Any], classes: int) -> ConformalSets:
    by_class = content.get("highest_scores")  # earlier versions had one for all classes
    sets = smallest_sets(between("confidence", content["confidence"], 0, 1), by_class is not None)
    sets.thresholds_ = np.full(classes, _or_infinite(content["highest_score"]))
    if by_class is not None:
        if not isinstance(by_class, list) or len(by_class) != classes:
            raise ValueError(f"highest_scores must be {classes} numbers, got {brief(by_class)}")
        sets.thresholds_ = np.array([_or_infinite(each) for each in by_class])
    return sets


def smallest_sets(coverage: float, by_class: bool = False) -> ConformalSets:
    """Return unfitted sets that a file can store: without random draws, and never empty."""
    return ConformalSets("lac", coverage, by_class, randomised=False, allow_empty=False)


def _intervals_from_dict(content: Mapping[str, Any]) -> ConformalIntervals:
    method: Any = one_of("method", content["method"], INTERVAL_METHODS)
    intervals = ConformalIntervals(method, between("confidence", content["confidence"], 0, 1))
    intervals.method_, intervals.quantile_ = method, _or_infinite(content["quantile"])
    return intervals


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _or_infinite(number: Any) -> float:
    return math.inf if number is None else _number(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {brief(value)}")
    return float(value)


def _whole(value: Any) -> int:
    return whole_number("examples", value, at_least=0)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected texts, got {brief(value)}")
    return tuple(map(_text, value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {brief(value)}")
    return value
