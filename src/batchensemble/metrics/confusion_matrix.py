"""How often each class is predicted for each true class, and what follows from these counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from batchensemble.core.printed_tables import table
from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.predictions import Prediction

MOST_CLASSES = 256  # that counts of all pairs are stored for
MOST_SHOWN = 12  # classes in a table that is read, not processed

Shares = Float[np.ndarray, "classes"]


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of a prediction.

    Attributes:
        counts: ``[true, predicted]``, how many examples of a class got each class.
        class_names: the classes in the order of their numbers; empty where they have no names.

    Example:
        >>> found = Confusion(np.array([[96, 1], [2, 1]]))
        >>> found.shares.tolist(), found.recall.round(4).tolist(), round(found.balanced_accuracy, 4)
        ([0.97, 0.03], [0.9897, 0.3333], 0.6615)
    """

    counts: Int[np.ndarray, "true predicted"]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def shares(self) -> Shares:
        """The base rates: which share of the examples is of each class."""
        shares: Shares = self.counts.sum(1) / self.counts.sum()
        return shares

    @property
    def recall(self) -> Shares:
        """The share of each class that is predicted as such; NaN for a class without examples."""
        return _share(self.counts.diagonal(), self.counts.sum(1))

    @property
    def precision(self) -> Shares:
        """The share of each class's predictions that are right; NaN for one never predicted."""
        return _share(self.counts.diagonal(), self.counts.sum(0))

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that occur; see :func:`balanced_accuracy`."""
        return balanced_accuracy(self.counts.diagonal(), self.counts.sum(1))

    @property
    def names(self) -> list[str]:
        """A name for each class: its own, or its number."""
        return named(len(self), self.class_names)

    def to_pandas(self) -> Any:
        """Return the counts as a ``pandas.DataFrame``, a row for each true class.

        Example:
            >>> found = Confusion(np.array([[3, 1], [0, 2]]), ("no", "yes"))
            >>> int(found.to_pandas().loc["no", "yes"])
            1
        """
        import pandas as pd

        names = self.names
        return pd.DataFrame(
            self.counts,
            index=pd.Index(names, name="true"),
            columns=pd.Index(names, name="predicted"),
        )

    def _repr_html_(self) -> str:
        lists = [each.tolist() for each in (self.shares, self.recall, self.precision)]
        if len(self) > MOST_SHOWN:
            heads = ["class", "share", "recall", "precision"]
            return table("Classes", heads, zip(self.names, *lists, strict=True))
        heads = ["true class", "share", *(f"predicted {name}" for name in self.names)]
        rows = zip(self.names, lists[0], self.counts.tolist(), strict=True)
        return table("Confusion matrix", heads, ([name, share, *row] for name, share, row in rows))


def confusion(prediction: Prediction, labels: Any) -> Confusion:
    """Return how often each class is predicted for each true class.

    Args:
        prediction: the prediction of any ensemble, with one class for each example.
        labels: the true class numbers, ``[examples]``.

    Raises:
        TypeError: the labels are not whole numbers.
        ValueError: the labels do not fit the prediction.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]], [[0.25, 0.75]]]))
        >>> confusion(sure, [0, 1, 0]).counts.tolist()
        [[1, 1], [0, 1]]
    """
    return Confusion(pair_counts(prediction, checked_labels(prediction, labels)))


def pair_counts(prediction: Prediction, labels: Labels) -> Int[np.ndarray, "true predicted"]:
    """Return the counts ``[true, predicted]`` of checked labels.

    ``sklearn.metrics.confusion_matrix`` returns the same in a hundred times the time.
    """
    classes = prediction.probs.shape[1]
    pairs = np.bincount(labels * classes + prediction.labels, minlength=classes**2)
    counts: Int[np.ndarray, "true predicted"] = pairs.reshape(classes, classes)
    return counts


def balanced_accuracy(right: Any, examples: Any) -> float:
    """Return the mean over the classes that occur of the share that is predicted right.

    Where one class is rare, predicting the other for every example has an accuracy near 1, and a
    balanced accuracy of 0.5 (Brodersen et al. 2010, doi 10.1109/ICPR.2010.764). It is that of
    ``sklearn.metrics.balanced_accuracy_score``.

    Args:
        right: number of examples of each class that are predicted right, ``[classes]``.
        examples: number of examples of each class, ``[classes]``.

    Example:
        >>> balanced_accuracy([97, 0], [97, 3])
        0.5
    """
    right, examples = np.asarray(right), np.asarray(examples)
    occurs = examples > 0
    return float((right[occurs] / examples[occurs]).mean())


def named(classes: int, class_names: Sequence[str]) -> list[str]:
    """Return a name for each class: those given, or its number."""
    return [
        str(class_names[each]) if each < len(class_names) else str(each) for each in range(classes)
    ]


def _share(part: np.ndarray, whole: np.ndarray) -> Shares:
    with np.errstate(invalid="ignore"):
        share: Shares = part / whole
    return share
