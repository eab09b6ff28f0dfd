"""Which columns of a table a prediction depends on, and how, by the ensemble and by each member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from sklearn.inspection import permutation_importance

from batchensemble.core.arguments import whole_number
from batchensemble.metrics.losses_by_example import negative_log
from batchensemble.predictions import Prediction, RegressionPrediction
from batchensemble.predictions.predict import predict

MOST_ROWS_OF_AN_EFFECT = 1000
MOST_LEVELS = 20  # of a column of words, the most frequent ones


@runtime_checkable
class MemberProbabilities(Protocol):
    """An estimator of classes whose members can be asked one by one."""

    classes_: Any

    def member_proba(self, X: Any) -> np.ndarray:
        """Return ``[rows, members, classes]``."""


@runtime_checkable
class MembersOfNumbers(Protocol):
    """An estimator of numbers whose members can be asked one by one."""

    def member_predict(self, X: Any) -> np.ndarray:
        """Return ``[rows, members]``."""


@dataclass(frozen=True)
class ColumnImportance:
    """By how much a score gets worse if a column is shuffled.

    Attributes:
        names: the columns of the table.
        score: ``"nll"``, in nats, or ``"rmse"``, in the unit of the target.
        baseline: the ensemble's score on the table as it is.
        ensemble: the increase of the ensemble's score in each repetition, ``[columns, repeats]``.
        members: the mean increase of each member's own score, ``[columns, members]``.
    """

    names: tuple[str, ...]
    score: str
    baseline: float
    ensemble: Float[np.ndarray, "columns repeats"]
    members: Float[np.ndarray, "columns members"]

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each column, the most important first.

        It has ``importance``, the mean over the repetitions, ``deviation``, their standard
        deviation, and ``members_low`` and ``members_high``, the range of the members.
        """
        import pandas as pd

        table = {
            "importance": self.ensemble.mean(1),
            "deviation": self.ensemble.std(1),
            "members_low": self.members.min(1),
            "members_high": self.members.max(1),
        }
        frame = pd.DataFrame(table, index=pd.Index(self.names, name="column"))
        return frame.sort_values("importance", ascending=False, kind="stable")

    def _repr_html_(self) -> str:
        html: str = self.to_pandas().to_html()
        return html


@dataclass(frozen=True)
class ColumnEffect:
    """The mean prediction if a column has one value in every row (partial dependence).

    Attributes:
        name: the column.
        values: the values that it is set to, ``[values]``.
        ensemble: the ensemble's mean prediction, ``[values]``: a probability, or a number in the
            unit of the target.
        members: that of each member, ``[values, members]``; where they differ, the table says
            little about the column.
        of: the class whose probability it is; ``None`` for numbers.
    """

    name: str
    values: np.ndarray
    ensemble: Float[np.ndarray, "values"]
    members: Float[np.ndarray, "values members"]
    of: Any = None

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each value."""
        import pandas as pd

        table = {
            "ensemble": self.ensemble,
            "members_low": self.members.min(1),
            "members_high": self.members.max(1),
        }
        return pd.DataFrame(table, index=pd.Index(self.values, name=self.name))


def column_importance(
    model: Any, frame: Any, y: Any, *, repeats: int = 5, seed: int = 0
) -> ColumnImportance:
    """Return the importance of each column of a table, by permutation, with the members' spread.

    A column is shuffled, so that it keeps its values and loses its relation to the others and to
    the target, and the score is computed again (Breiman 2001, doi 10.1023/A:1010933404324; Fisher
    et al. 2019, arXiv 1801.01489). Of two columns that tell the same, each seems less important.
    Rows that the model was not trained on tell what helps on new rows.
    ``sklearn.inspection.permutation_importance`` does the shuffling.

    Args:
        model: an ensemble trained on a data frame, or an estimator with ``member_proba`` and
            ``classes_`` or with ``member_predict``.
        frame: a pandas or polars data frame or an array of features, as the model takes it.
        y: the true classes or numbers, ``[rows]``; for an ensemble class numbers, or the names that
            it was trained with.
        repeats: how often each column is shuffled, 5 by default.
        seed: seed of the shuffling.

    Raises:
        TypeError: the model predicts neither a class nor a number for each row.
        ValueError: the rows do not fit the model, or a class is unknown.

    Example:
        >>> import torch, batchensemble as be
        >>> X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
        >>> y = (X[:, 0] > 0).astype(int)
        >>> model = be.BatchEnsemble(torch.nn.Linear(2, 2), members=2)
        >>> _ = be.fit(model, (X, y), epochs=20, lr=0.05, seed=0)
        >>> found = column_importance(model, X, y)
        >>> found.to_pandas().index.tolist()
        ['x0', 'x1']
    """
    whole_number("repeats", repeats)
    table = _table(frame)
    asked = _Asked(model)
    labels = asked.targets(y, len(table))
    found = permutation_importance(
        asked,
        table,
        labels,
        scoring=_negative_scores,
        n_repeats=repeats,
        random_state=seed,
    )
    members = [each for name, each in found.items() if name != "ensemble"]
    return ColumnImportance(
        tuple(map(str, table.columns)),
        "nll" if asked.classes else "rmse",
        -_negative_scores(asked, table, labels)["ensemble"],
        found["ensemble"].importances,
        np.stack([each.importances_mean for each in members], 1),
    )


def column_effect(
    model: Any, frame: Any, column: Any, *, of: Any = None, points: int = 20, seed: int = 0
) -> ColumnEffect:
    """Return how the mean prediction changes with one column, by the ensemble and by each member.

    Every row gets one value in this column and keeps the others (partial dependence; Friedman 2001,
    doi 10.1214/aos/1013203451). Where columns depend on each other, that makes rows that there are
    not, on which members tend to differ.

    Args:
        model: as in :func:`column_importance`.
        frame: a data frame or array of features; of more than 1,000 rows a random sample is used.
        column: name of the column, or its number in an array.
        of: the class whose probability is returned; by default the last one. Not for numbers.
        points: number of values: quantiles of a column of numbers; columns of words have their
            most frequent levels, up to 20.
        seed: seed of the sample.

    Raises:
        ValueError: there is no such column or class.

    Example:
        >>> import torch, batchensemble as be
        >>> model = be.BatchEnsemble(torch.nn.Linear(2, 2), members=4)
        >>> X = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
        >>> column_effect(model, X, 0, points=5).members.shape
        (5, 4)
    """
    whole_number("points", points, at_least=2)
    table, asked = _table(frame), _Asked(model)
    name = f"x{column}" if f"x{column}" in table.columns else column
    if name not in table.columns:
        raise ValueError(
            f"there is no column {column!r}; there are {', '.join(map(repr, table.columns))}"
        )
    if len(table) > MOST_ROWS_OF_AN_EFFECT:
        table = table.sample(MOST_ROWS_OF_AN_EFFECT, random_state=seed)
    values = _values(table[name], points)
    number, label = asked.class_of(of)
    means = []
    for value in values:
        changed = table.copy()
        changed[name] = value
        changed[name] = changed[name].astype(table[name].dtype)
        outputs = asked.members(changed)
        means.append((outputs[..., number] if asked.classes else outputs).mean(0))
    members = np.stack(means)
    return ColumnEffect(str(name), np.asarray(values), members.mean(1), members, label)


class _Asked:
    """A model as scikit-learn's inspection takes it, with the outputs of its members."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.names: tuple[Any, ...] = ()
        self.classes = False
        if isinstance(model, MemberProbabilities):
            self.names, self.classes = tuple(np.asarray(model.classes_).tolist()), True
        elif not isinstance(model, MembersOfNumbers):
            self.names = tuple(model.class_names)
            self.classes = bool(self.names)

    def fit(self, *_: Any) -> _Asked:
        """Return the object itself; scikit-learn wants estimators to have this."""
        return self

    def members(self, table: Any) -> np.ndarray:
        """Return ``[rows, members, classes]``, or ``[rows, members]`` for numbers."""
        if isinstance(self.model, MemberProbabilities):
            return np.asarray(self.model.member_proba(table))
        if isinstance(self.model, MembersOfNumbers):
            return np.asarray(self.model.member_predict(table))
        known = getattr(self.model, "feature_names", None)
        found = predict(self.model, table if known else table.to_numpy())
        if isinstance(found, Prediction) and found.member_probs.ndim == 3:
            self.classes = True
            return found.member_probs
        if isinstance(found, RegressionPrediction) and found.member_means.ndim == 2:
            return found.member_means
        raise TypeError(
            "the importance of columns is for models that predict a class or a number for each "
            f"row, got a {type(found).__name__}"
        )

    def targets(self, y: Any, rows: int) -> np.ndarray:
        """Return the true class numbers, or numbers."""
        targets = np.asarray(y).reshape(-1)
        if len(targets) != rows:
            raise ValueError(f"y must have one value for each of the {rows} rows, got {len(y)}")
        numbers = not isinstance(self.model, MemberProbabilities) and targets.dtype.kind in "biuf"
        if not self.names or numbers:
            return targets
        places = {each: place for place, each in enumerate(self.names)}
        unknown = [each for each in targets.tolist() if each not in places]
        if unknown:
            known = ", ".join(map(repr, self.names))
            raise ValueError(f"y has the class {unknown[0]!r}; the model knows {known}")
        return np.array([places[each] for each in targets.tolist()])

    def class_of(self, of: Any) -> tuple[int, Any]:
        """Return the number and the name of a class."""
        if of is None:
            return -1, self.names[-1] if self.names else None
        if of in self.names:
            return self.names.index(of), of
        if not self.names and isinstance(of, int):
            return of, of
        raise ValueError(f"there is no class {of!r}; there are {', '.join(map(repr, self.names))}")


def _negative_scores(asked: _Asked, table: Any, targets: np.ndarray) -> dict[str, float]:
    """Return minus the NLL or RMSE of the ensemble and of each member; higher is better."""
    outputs = asked.members(table)
    if asked.classes:
        of_truth = outputs[np.arange(len(targets)), :, targets.astype(int)]
        errors = negative_log(np.column_stack([of_truth.mean(1), of_truth])).mean(0)
    else:
        guesses = np.column_stack([outputs.mean(1), outputs])
        errors = np.sqrt(np.square(guesses - targets[:, None]).mean(0))
    names = ["ensemble", *(f"member_{each}" for each in range(len(errors) - 1))]
    return dict(zip(names, (-errors).tolist(), strict=True))


def _table(frame: Any) -> Any:
    """Return a pandas data frame; the columns of an array are ``x0``, ``x1`` and so on."""
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        return frame
    if hasattr(frame, "to_pandas"):
        return frame.to_pandas()
    array = np.asarray(frame)
    if array.ndim != 2:
        raise ValueError(f"frame must have the shape [rows, columns], got {list(array.shape)}")
    return pd.DataFrame(array, columns=[f"x{each}" for each in range(array.shape[1])])


def _values(column: Any, points: int) -> Sequence[Any]:
    """Return the values that an effect is computed at."""
    known = column.dropna()
    if known.dtype.kind in "iuf" and known.nunique() > 2:
        levels = np.linspace(0.02, 0.98, points)
        quantiles = np.unique(np.quantile(known, levels).astype(known.dtype))
        return [each.item() for each in quantiles]
    counts = known.value_counts(sort=True)
    found: list[Any] = counts.index[:MOST_LEVELS].tolist()
    return sorted(found) if known.dtype.kind in "biuf" else found
