"""Scores by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from batchensemble.core.printed_tables import table
from batchensemble.metrics.confusion_matrix import Confusion


class Scores(Mapping[str, Any]):
    """A mapping from names to scores; the functions that return it say which.

    Scores that take long, ``auc`` and ``average_precision``, are computed when they are asked for.
    Until then the ensemble's probabilities stay in memory. Printing, comparing and pickling ask for
    all.

    Args:
        values: the scores by name; ``...`` for those that ``later`` computes from their name.

    Attributes:
        one_class: the class that all members predict for every example; ``None`` if they predict
            several, or no classes.
        confusion: for up to 256 classes, how often each is predicted for each true class, with the
            share of each class; else ``None``.
        constant: what the constant prediction is whose scores are ``constant_...``, in words; empty
            without any.

    Example:
        >>> scores = Scores({"accuracy": 0.9})
        >>> scores["accuracy"], list(scores)
        (0.9, ['accuracy'])
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        one_class: int | None = None,
        confusion: Confusion | None = None,
        constant: str = "",
        later: Callable[[str], Any] | None = None,
    ) -> None:
        self._values = dict(values)
        self.one_class, self.confusion, self.constant = one_class, confusion, constant
        self._later = later

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        if value is ... and self._later is not None:
            value = self._values[name] = self._later(name)
            if all(each is not ... for each in self._values.values()):
                self._later = None  # and with it the probabilities
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_values": dict(self), "_later": None}

    def now(self) -> dict[str, Any]:
        """Return the scores that need not be computed any more."""
        return {name: value for name, value in self._values.items() if value is not ...}

    def remark(self, class_names: Sequence[str] = ()) -> str:
        """Return a warning if the model is no better than a constant prediction; else nothing.

        That is where all members predict one class for every example, where the accuracy is no
        higher than the share of the most frequent class, or where the RMSE is no lower than that of
        the mean.

        Args:
            class_names: names of the classes in the order of their numbers; by default those of
                ``confusion``, else the numbers are shown.

        Example:
            >>> Scores({"accuracy": 0.9}, one_class=0).remark()
            'all members predict class 0 for every example; the accuracy, 0.9000, is its share'
        """
        if "constant_rmse" in self._values:
            own, constant = self["rmse"], self["constant_rmse"]
            return no_better_than_mean(own, constant, self.constant) if own >= constant > 0 else ""
        if "accuracy" not in self._values or self["accuracy"] == 1:
            return ""
        if not class_names and self.confusion is not None:
            class_names = self.confusion.class_names
        if self.one_class is not None:
            return only_one_class(self.one_class, self["accuracy"], class_names)
        share = self._values.get("constant_accuracy", 0.0)
        if self.confusion is None or self["accuracy"] > share:
            return ""
        majority = int(self.confusion.shares.argmax())
        return no_better_than_majority(self["accuracy"], share, majority, class_names)

    def __repr__(self) -> str:
        return f"Scores({dict(self)})"

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), value) for name, value in self.items()]
        return table("Scores", ["score", "value"], rows)


def only_one_class(named: int, accuracy: float, class_names: Sequence[str] = ()) -> str:
    """Return the warning that all members predict one class for every example."""
    return (
        f"all members predict class {class_name(named, class_names)} for every example; the "
        f"accuracy, {accuracy:.4f}, is its share"
    )


def no_better_than_majority(
    accuracy: float, share: float, majority: int, class_names: Sequence[str] = ()
) -> str:
    """Return the warning that the accuracy is at most the share of the most frequent class.

    Example:
        >>> no_better_than_majority(0.97, 0.97, 0, ["no", "yes"]).partition(": ")[0]
        "accuracy 0.9700, and 0.9700 of the rows are of class 'no'"
    """
    return (
        f"accuracy {accuracy:.4f}, and {share:.4f} of the rows are of class "
        f"{class_name(majority, class_names)}: predicting that class for every row would be as good"
    )


def no_better_than_mean(rmse: float, constant: float, mean: str) -> str:
    """Return the warning that the RMSE is at least that of a mean, in words ``mean``."""
    return (
        f"RMSE {rmse:.4g}, and {constant:.4g} for {mean}: predicting that number for every row "
        "would be as good"
    )


def class_name(number: int, class_names: Sequence[str] = ()) -> str:
    """Return the name of a class for a sentence: quoted, or its number."""
    return repr(class_names[number]) if number < len(class_names) else str(number)
