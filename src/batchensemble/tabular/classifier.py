"""``BatchEnsembleClassifier``: the classes of the rows of a table, with honest uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.columns import Array, is_missing
from batchensemble.decisions import ConformalSets, Threshold, threshold_for
from batchensemble.decisions.conformal.quantile import least_examples
from batchensemble.predictions import Prediction
from batchensemble.tabular.estimator import TableEstimator

NULLABLE_BOOLEANS = ("boolean", "bool[pyarrow]")  # types of pandas
MOST_SINGLE = 20  # classes that all occur once
RARE_CLASS = 0.1  # share of the rows below which a class has sets with a threshold of its own


class BatchEnsembleClassifier(ClassifierMixin, TableEstimator):  # type: ignore[misc]
    """A classifier for tables on scikit-learn's terms: an ensemble of perceptrons.

    Words, gaps, dates and truth values in the columns are welcome, and so are data frames of pandas
    and polars, Arrow tables and arrays. Rows without a target are left out. The ensemble is that
    of TabM (Gorishniy et al. 2025, arXiv 2410.24210): a BatchEnsemble of perceptrons on embedded
    columns. Some rows are kept from training to stop it, and others to fit the sets and
    thresholds of :meth:`predict_set` and :meth:`decide` on.

    Args:
        members: number of members (M).
        method: ``"batch"``, ``"deep"``, ``"mimo"``, ``"single"``, or another name of
            :data:`batchensemble.ensembles.METHODS`.
        hidden: widths of the hidden layers.
        dropout: probability of dropout after each.
        init: how the members of ``"batch"`` differ at the start: ``"feature_signs"`` or
            ``"feature_normals"``, one draw for each column and member, or another initialisation of
            :class:`~batchensemble.BatchEnsemble`; by default signs.
        epochs: most passes over the training rows.
        batch_size: examples a step; by default by the number of rows, from 64 to 1,024.
        lr: learning rate of AdamW.
        weight_decay: weight decay of the weights of layers.
        patience: epochs without a better score on the stopping rows before training stops.
        stop_on: that score, see :func:`batchensemble.fit`.
        time_budget: seconds that the training may take; by default no limit.
        fast: whether each member sees its share of each batch only, which costs as much as one
            network and is a little less accurate.
        choose: number of members to keep after training, those that predict the stopping rows best
            together; by default all.
        refit: whether to train once more, on the stopping rows too, for the best number of epochs.
        class_weight: weight of each class by its name, or ``"balanced"``.
        validation_fraction: share of the rows that stop the training; 0: none, and a fixed number
            of epochs is trained. Below 20 rows none are.
        calibration_fraction: share of the rows kept for sets and thresholds.
        drop: columns that are not used.
        keep: columns that are used even if they seem to name the rows, or hardly vary.
        categorical: columns that are categories, though they hold numbers.
        numeric: columns that are numbers, though some values are words.
        warm_start: whether a second ``fit`` continues from the weights of the first.
        random_state: seed of parts, weights and order.
        device: such as ``"cuda"``; by default a GPU if there is one.
        n_jobs: number of threads; by default as many as torch uses.
        verbose: whether to show a progress bar in a terminal.

    Attributes:
        classes_: the classes, in the order of the columns of :meth:`predict_proba`.
        model_: the trained ensemble, which all functions of the package take.
        encoding_: what becomes of each column, with the reasons; ``encoding_.notes()`` tells what
            was left out.
        history_: record of the training.
        n_iter_: number of epochs.
        feature_names_in_, n_features_in_: the columns of ``fit``.

    Example:
        >>> import pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> age, job = rng.normal(40, 9, 400), rng.choice(["cook", "smith", None], 400)
        >>> frame = pd.DataFrame({"age": age, "job": job})
        >>> y = np.where((age > 40) == (job == "cook"), "yes", "no")
        >>> model = BatchEnsembleClassifier(members=4, random_state=0).fit(frame, y)
        >>> model.predict_proba(frame[:3]).shape, model.predict_uncertainty(frame[:3]).shape
        ((3, 2), (3, 3))
        >>> model.score(frame, y) > 0.9
        True
    """

    _declared: Array | None

    def __init__(
        self,
        members: int = 8,
        *,
        method: str = "batch",
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.1,
        init: str | None = None,
        epochs: int = 200,
        batch_size: int | None = None,
        lr: float = 2e-3,
        weight_decay: float = 3e-4,
        patience: int = 12,
        stop_on: str = "nll",
        time_budget: float | None = None,
        fast: bool = False,
        choose: int | None = None,
        refit: bool = False,
        class_weight: Mapping[Any, float] | str | None = None,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.1,
        drop: Sequence[str] = (),
        keep: Sequence[str] = (),
        categorical: Sequence[str] = (),
        numeric: Sequence[str] = (),
        warm_start: bool = False,
        random_state: Any = None,
        device: str | None = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            members, method=method, hidden=hidden, dropout=dropout, init=init, epochs=epochs,
            batch_size=batch_size, lr=lr, weight_decay=weight_decay, patience=patience,
            stop_on=stop_on, time_budget=time_budget, fast=fast, choose=choose, refit=refit,
            validation_fraction=validation_fraction, calibration_fraction=calibration_fraction,
            drop=drop, keep=keep, categorical=categorical, numeric=numeric, warm_start=warm_start,
            random_state=random_state, device=device, n_jobs=n_jobs, verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, eval_set: Any = None
    ) -> BatchEnsembleClassifier:
        """Train on a table.

        Args:
            X: features: a data frame, an Arrow table or an array ``[examples, features]``.
            y: the class of each example, ``[examples]``; those without one are left out.
            sample_weight: how much each example counts, ``[examples]``.
            eval_set: a pair ``(X, y)`` that stops the training, instead of a share of the rows.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: the data cannot be used; nothing is trained then.
        """
        if not self.warm_start:
            self._declared = None
        self._fit(X, y, sample_weight, eval_set)
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> BatchEnsembleClassifier:
        """Train one epoch on some examples, without stopping early or keeping rows.

        The first call decides what becomes of the columns: their scale, and their levels.

        Args:
            X: features, as in :meth:`fit`.
            y: the class of each example.
            classes: all classes that will occur; required in the first call if ``y`` has not all.
            sample_weight: how much each example counts.

        Returns:
            The estimator itself.
        """
        if not hasattr(self, "model_") and classes is not None:
            self._declared = np.unique(np.asarray(classes))
        self._partial_fit(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each example, ``[examples]``."""
        labels = self._prediction(X).labels
        found: Array = self.classes_[labels]
        return found

    def predict_proba(self, X: Any) -> Float[np.ndarray, "examples classes"]:
        """Return the mean of the members' probabilities, ``[examples, classes]``."""
        return self._prediction(X).probs

    def member_proba(self, X: Any) -> Float[np.ndarray, "examples members classes"]:
        """Return each member's probabilities, ``[examples, members, classes]``."""
        return self._prediction(X).member_probs

    def predict_set(self, X: Any, confidence: float = 0.9) -> Bool[np.ndarray, "examples classes"]:
        """Return which classes are in the prediction set of each example.

        The sets contain the true class with this probability (LAC, Sadinle et al. 2019, arXiv
        1609.00451), on new examples of the kind of those kept from training; where a class is rare
        (below 10 % of the kept rows) and has enough of them, within each class.

        Args:
            X: features of examples.
            confidence: nominal coverage, between 0 and 1.

        Returns:
            Boolean ``[examples, classes]``, in the order of ``classes_``.

        Raises:
            ValueError: no rows were kept, see :meth:`calibrate`.
        """
        kept = self._kept()
        assert isinstance(kept.prediction, Prediction)
        counts = np.bincount(kept.targets, minlength=len(self.classes_))
        rare = counts.min() < RARE_CLASS * counts.sum() and counts.min() >= least_examples(
            confidence
        )
        sets = ConformalSets(method="lac", confidence=confidence, by_class=bool(rare))
        return sets.fit(kept.prediction, kept.targets)(self._prediction(X)).contains

    def decide(self, risk: float = 0.05, confidence: float = 0.95, by: str = "total") -> Threshold:
        """Find when to answer, so that at most a share ``risk`` of the answers is wrong.

        See :func:`batchensemble.threshold_for`. :meth:`accepts` uses the result.

        Args:
            risk: largest error rate of the answered examples.
            confidence: confidence of the guarantee.
            by: the uncertainty that the threshold is on.

        Raises:
            ValueError: no rows were kept, see :meth:`calibrate`.
        """
        kept = self._kept()
        assert isinstance(kept.prediction, Prediction)
        self.threshold_ = threshold_for(kept.prediction, kept.targets, risk, confidence, by)
        return self.threshold_

    def _prediction(self, X: Any) -> Prediction:
        found = self._predict(X)
        assert isinstance(found, Prediction)
        return found

    def _targets(self, y: Any, *, reset: bool) -> Array:
        """Return class numbers as float64, NaN where there is no target."""
        if str(getattr(y, "dtype", "")) in NULLABLE_BOOLEANS:
            y = y.to_numpy(object)  # scikit-learn would make floats of them
        y = column_or_1d(y, warn=True)
        missing = np.array([is_missing(each) for each in y.tolist()], bool)
        known = y[~missing]
        if known.dtype.kind == "O" and len({isinstance(each, str) for each in known}) > 1:
            known = known.astype(str)  # numbers beside words
        if known.dtype.kind == "O" and {type(each) for each in known} == {bool}:
            known = known.astype(bool)
        if known.dtype.kind == "f" and len(known):
            whole = known.astype(np.int64)
            known = whole if missing.any() and (whole == known).all() else known
        check_classification_targets(known if len(known) else y)
        if reset:
            declared = getattr(self, "_declared", None)
            self.classes_ = np.unique(known) if declared is None else declared
            if len(self.classes_) == len(known) > MOST_SINGLE:
                raise ValueError(
                    f"y must hold classes that occur more than once, got {len(known)} different "
                    "ones in as many examples; BatchEnsembleRegressor predicts numbers"
                )
        strange = ~np.isin(known, self.classes_)
        if strange.any():
            first = str(known[strange.argmax()])
            names = list(map(str, self.classes_))
            raise ValueError(
                f"y must hold the classes of the training, {', '.join(names)}, got {first!r}"
                f"{nearest(first, names)}"
            )
        found = np.full(len(y), np.nan)
        found[~missing] = np.searchsorted(self.classes_, known)
        return found

    def _outputs(self, targets: Array) -> int:
        if len(self.classes_) < 2:
            raise ValueError("The number of classes has to be greater than one; got 1 class")
        return len(self.classes_)

    def _fit_arguments(self) -> dict[str, Any]:
        weight: Any = self.class_weight
        if isinstance(weight, Mapping):
            numbers = {each: number for number, each in enumerate(self.classes_.tolist())}
            unknown = [each for each in weight if each not in numbers]
            if unknown:
                raise ValueError(
                    f"class_weight names {unknown[0]!r}, which is none of the classes "
                    f"{', '.join(map(str, numbers))}"
                )
            weight = {numbers[each]: value for each, value in weight.items()}
        return {"loss": "cross_entropy", "class_weight": weight}

    def _loss_targets(self, targets: Array) -> Array:
        return targets.astype(np.int64)
