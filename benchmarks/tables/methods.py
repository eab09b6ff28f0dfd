"""Who takes part: this library and its peers, each with the preprocessing that it wants.

A method gets training rows and the rows to predict, and says probabilities or numbers. What needs
rows to stop on takes a fifth of the training rows for it. A method that says one number a row is
taken for a normal around it: its deviation is that of its errors on a fifth of the training rows,
when fitted on the others, and then it is fitted on all; the seconds are those of the last fit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from benchmarks.tables.encode import Codes, Columns, Inputs
from benchmarks.tables.registry import Task
from benchmarks.tables.scores import COVERAGE, LEVELS, Numbers
from benchmarks.tables.seconds import Stopwatch

HELD = 0.2  # share of the training rows


@dataclass(frozen=True)
class Rows:
    """What a method sees.

    Attributes:
        task: classes or numbers.
        train: features of the training rows.
        y: class numbers, or numbers.
        test: features of the rows to predict.
        classes: number of classes, 0 for numbers.
        seed: of everything that is drawn.
    """

    task: Task
    train: pd.DataFrame
    y: np.ndarray
    test: pd.DataFrame
    classes: int
    seed: int

    def parted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the rows that are fitted and of those that are held out."""
        index, few = np.arange(len(self.y)), self.classes and np.bincount(self.y).min() < 2
        stratify = self.y if self.classes and not few else None
        return train_test_split(  # type: ignore[no-any-return]
            index, test_size=HELD, random_state=self.seed, stratify=stratify
        )

    def of(self, index: np.ndarray, test: np.ndarray) -> Rows:
        """Return a smaller task: some training rows, and others to predict."""
        frame = self.train.reset_index(drop=True)
        return Rows(
            self.task, frame.iloc[index], self.y[index], frame.iloc[test], self.classes, self.seed
        )


Answer = np.ndarray | Numbers
Run = Callable[[Rows, Stopwatch], Answer]


def ours(rows: Rows, watch: Stopwatch, **options: Any) -> Answer:
    """Run the estimators of this library with their defaults."""
    import batchensemble as be

    if rows.classes:
        model = be.BatchEnsembleClassifier(random_state=rows.seed, **options)
        with watch.fitting():
            model.fit(rows.train, rows.y)
        with watch.predicting():
            return _all_classes(model.predict_proba(rows.test), model.classes_, rows.classes)
    model = be.BatchEnsembleRegressor(random_state=rows.seed, **options)
    with watch.fitting():
        model.fit(rows.train, rows.y)
    with watch.predicting():
        mean = np.asarray(model.predict(rows.test))
        quantiles = np.asarray(model.predict_quantiles(rows.test, LEVELS))
        return Numbers(mean, quantiles, np.asarray(model.predict_interval(rows.test, COVERAGE)))


def hist_boosting(rows: Rows, watch: Stopwatch, *, early: bool) -> Answer:
    """Run scikit-learn's gradient boosting: its 100 trees, or up to 1,000 stopped early."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if rows.classes else HistGradientBoostingRegressor
    trees = {"max_iter": 1_000, "early_stopping": True} if early else {"early_stopping": False}
    columns = Columns(rows.train)
    model = kind(**trees, random_state=rows.seed, categorical_features="from_dtype")
    return _of_model(model, columns, rows, watch)


def lightgbm(rows: Rows, watch: Stopwatch) -> Answer:
    """Run LightGBM with its defaults."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = LGBMClassifier if rows.classes else LGBMRegressor
    model = kind(random_state=rows.seed, n_jobs=1, verbose=-1)
    return _of_model(model, _NamedByNumber(rows.train), rows, watch)


class _NamedByNumber(Columns):
    """Columns with numbers for names, since LightGBM refuses some letters."""

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        rows = super().__call__(frame)
        return rows.set_axis([f"x{index}" for index in range(rows.shape[1])], axis=1)


def random_forest(rows: Rows, watch: Stopwatch) -> Answer:
    """Run a random forest of 300 trees."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if rows.classes else RandomForestRegressor
    model = kind(n_estimators=300, random_state=rows.seed, n_jobs=1)
    return _of_model(model, Codes(rows.train), rows, watch)


def sklearn_mlp(rows: Rows, watch: Stopwatch) -> Answer:
    """Run scikit-learn's perceptron, stopped early, on standardised and one-hot columns."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import StandardScaler

    settings = {"early_stopping": True, "max_iter": 500, "random_state": rows.seed}
    if rows.classes:
        # Its own early stopping needs two rows of each class.
        settings["early_stopping"] = bool(np.bincount(rows.y).min() > 1)
        model: Any = MLPClassifier(**settings)
    else:
        model = TransformedTargetRegressor(MLPRegressor(**settings), transformer=StandardScaler())
    return _of_model(model, Inputs(rows.train), rows, watch)


def tabm_own(rows: Rows, watch: Stopwatch) -> Answer:
    """Run the package ``tabm`` by its own recipe, see :mod:`benchmarks.tables.tabm_recipe`."""
    from benchmarks.tables.tabm_recipe import run

    return run(rows, watch)


def realmlp(rows: Rows, watch: Stopwatch) -> Answer:
    """Run RealMLP with its tuned defaults."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    return _of_pytabkit(RealMLP_TD_Classifier, RealMLP_TD_Regressor, rows, watch)


def tabm_d(rows: Rows, watch: Stopwatch) -> Answer:
    """Run pytabkit's TabM with its defaults."""
    from pytabkit import TabM_D_Classifier, TabM_D_Regressor

    return _of_pytabkit(TabM_D_Classifier, TabM_D_Regressor, rows, watch)


def _of_pytabkit(classifier: Any, regressor: Any, rows: Rows, watch: Stopwatch) -> Answer:
    """Run an estimator of pytabkit on one split of its own, stopped on the NLL or the RMSE."""
    metric = {"val_metric_name": "cross_entropy"} if rows.classes else {}
    model = (classifier if rows.classes else regressor)(
        device="cpu", random_state=rows.seed, n_cv=1, n_refit=0, n_threads=1, **metric
    )
    return _of_model(model, _Filled(rows.train), rows, watch)


class _Filled(Columns):
    """Columns without gaps in numbers, which pytabkit refuses: the mean, and an indicator."""

    def __init__(self, frame: pd.DataFrame) -> None:
        super().__init__(frame)
        numbers = super().__call__(frame)[self.numbers]
        self.means, self.gaps = numbers.mean(), [n for n in numbers if numbers[n].isna().any()]

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        rows = super().__call__(frame)
        gaps = rows[self.gaps].isna().astype(float).add_prefix("gap ")
        for name in self.levels:
            # A level that was not seen is the gap of a category.
            rows[name] = rows[name].cat.add_categories("(unseen)").fillna("(unseen)")
        return pd.concat([rows.fillna(self.means), gaps], axis=1)


def _of_model(model: Any, inputs: Callable[..., Any], rows: Rows, watch: Stopwatch) -> Answer:
    """Fit an estimator on scikit-learn's terms and return what it says."""
    from sklearn.base import clone

    if rows.classes:
        with watch.fitting():
            model.fit(inputs(rows.train), rows.y)
        with watch.predicting():
            return _all_classes(
                model.predict_proba(inputs(rows.test)), model.classes_, rows.classes
            )
    fitted, held = rows.parted()
    part = rows.of(fitted, held)
    trial = clone(model).fit(inputs(part.train), part.y)
    deviation = float(np.sqrt(((trial.predict(inputs(part.test)) - rows.y[held]) ** 2).mean()))
    with watch.fitting():
        model.fit(inputs(rows.train), rows.y)
    with watch.predicting():
        mean = np.asarray(model.predict(inputs(rows.test)), np.float64).reshape(-1)
    return Numbers.normal(mean, deviation)


def _all_classes(probs: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Return probabilities of all classes, of which a model may not have seen some."""
    found = np.zeros((len(probs), count))
    found[:, np.asarray(classes, int)] = probs
    return found


def _quietly(run: Run) -> Run:
    def quiet(rows: Rows, watch: Stopwatch) -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of peers, on unseen levels and names of columns
            return run(rows, watch)

    return quiet


OURS = "ours"
METHODS: dict[str, Run] = {
    OURS: ours,
    "ours fast": lambda rows, watch: ours(rows, watch, fast=True),
    "tabm": _quietly(tabm_own),
    "boosting, stopped": _quietly(lambda rows, watch: hist_boosting(rows, watch, early=True)),
    "boosting": _quietly(lambda rows, watch: hist_boosting(rows, watch, early=False)),
    "lightgbm": _quietly(lightgbm),
    "forest": _quietly(random_forest),
    "mlp": _quietly(sklearn_mlp),
    "realmlp": _quietly(realmlp),
    "tabm_d": _quietly(tabm_d),
}

# Other choices of the recipe, each by what differs from its defaults.
CHANGES: dict[str, dict[str, Any]] = {
    "refit": {"refit": True},
    "15 % to stop on": {"validation_fraction": 0.15},
    "20 % to stop on, refit": {"validation_fraction": 0.2, "refit": True},
    "batches of 64": {"batch_size": 64},
    "16 members": {"members": 16},
    "256 wide": {"hidden": (256, 256)},
    "three layers": {"hidden": (128, 128, 128)},
    "dropout 0.2": {"dropout": 0.2},
    "half the learning rate": {"lr": 1e-3},
    "normals": {"init": "feature_normals"},
    "fast": {"fast": True},
    "fast, patience of 10": {"fast": True, "patience": 10},
    "fast, batches of 256": {"fast": True, "batch_size": 256},
}
ALTERNATIVES: dict[str, Run] = {
    name: lambda rows, watch, changes=changes: ours(rows, watch, **changes)  # type: ignore[misc]
    for name, changes in CHANGES.items()
}
