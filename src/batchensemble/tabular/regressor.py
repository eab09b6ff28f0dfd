"""``BatchEnsembleRegressor``: numbers for the rows of a table, with honest uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import RegressorMixin
from sklearn.utils import check_array, column_or_1d

from batchensemble.data.tables.columns import Array
from batchensemble.decisions import ConformalIntervals, Threshold, threshold_for
from batchensemble.predictions import Normals, RegressionPrediction
from batchensemble.tabular.estimator import TableEstimator


class BatchEnsembleRegressor(RegressorMixin, TableEstimator):  # type: ignore[misc]
    """A regressor for tables on scikit-learn's terms: an ensemble of perceptrons.

    Each member predicts a normal distribution, of a number or of several. It takes the tables and
    the arguments of :class:`~batchensemble.BatchEnsembleClassifier` but ``class_weight``, and has
    the same attributes but ``classes_``. The rows that it keeps are those that the intervals of
    :meth:`predict_interval` are fitted on.

    Example:
        >>> import pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> size, town = rng.uniform(20, 200, 600), rng.choice(["Bonn", "Ulm"], 600)
        >>> frame = pd.DataFrame({"size": size, "town": town})
        >>> rent = size * np.where(town == "Bonn", 12, 9) + rng.normal(0, 50, 600)
        >>> model = BatchEnsembleRegressor(members=4, random_state=0).fit(frame, rent)
        >>> model.predict_interval(frame[:3]).shape
        (3, 2)
        >>> model.score(frame, rent) > 0.95
        True
    """

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, eval_set: Any = None
    ) -> BatchEnsembleRegressor:
        """Train on a table.

        Args:
            X: features: a data frame, an Arrow table or an array ``[examples, features]``.
            y: the number of each example, ``[examples]``, or several, ``[examples, targets]``;
                examples without one are left out.
            sample_weight: how much each example counts, ``[examples]``.
            eval_set: a pair ``(X, y)`` that stops the training, instead of a share of the rows.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: the data cannot be used; nothing is trained then.
        """
        self._fit(X, y, sample_weight, eval_set)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> BatchEnsembleRegressor:
        """Train one epoch on some examples, without stopping early or keeping rows.

        The first call decides what becomes of the columns and the scale of the targets.

        Args:
            X: features, as in :meth:`fit`.
            y: the number of each example.
            sample_weight: how much each example counts.

        Returns:
            The estimator itself.
        """
        self._partial_fit(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """Return the mean of the ensemble's distribution, ``[examples]`` or with targets."""
        return self._prediction(X).mean

    def member_predict(self, X: Any) -> Float[np.ndarray, "examples members ..."]:
        """Return the mean that each member predicts, ``[examples, members]``."""
        return self._prediction(X).member_means

    def predict_quantiles(
        self, X: Any, levels: Sequence[float] = (0.05, 0.5, 0.95)
    ) -> Float[np.ndarray, "examples levels ..."]:
        """Return quantiles of the ensemble's distribution, without a guarantee.

        Args:
            X: features of examples.
            levels: between 0 and 1.

        Returns:
            ``[examples, levels]``, in the unit of the target.
        """
        prediction = self._prediction(X)
        return np.stack([prediction.quantile(level) for level in levels], 1)

    def predict_interval(
        self, X: Any, confidence: float = 0.9
    ) -> Float[np.ndarray, "examples 2 ..."]:
        """Return an interval that contains the number of each example with a given probability.

        Its width is a multiple of the ensemble's standard deviation, fitted on the rows that were
        kept from training (Lei et al. 2018, arXiv 1604.04173), so that the probability holds for
        new examples of their kind, on average.

        Args:
            X: features of examples.
            confidence: nominal coverage, between 0 and 1.

        Returns:
            The lower and the upper ends ``[examples, 2]``, or ``[examples, 2, targets]``.

        Raises:
            ValueError: no rows were kept, see :meth:`calibrate`.
        """
        kept, new = self._kept(), self._prediction(X)
        assert isinstance(kept.prediction, RegressionPrediction)
        if kept.targets.ndim == 1:
            return self._ends(kept.prediction, kept.targets, new, confidence)
        ends = [
            self._ends(
                of_target(kept.prediction, k), kept.targets[:, k], of_target(new, k), confidence
            )
            for k in range(kept.targets.shape[1])
        ]
        return np.stack(ends, -1)

    @staticmethod
    def _ends(kept: Any, targets: Array, new: Any, confidence: float) -> Array:
        found = ConformalIntervals(confidence=confidence).fit(kept, targets)(new)
        return np.stack([found.lower, found.upper], 1)

    def decide(
        self,
        risk: float = 0.05,
        confidence: float = 0.95,
        by: str = "total",
        *,
        tolerance: float,
    ) -> Threshold:
        """Find when to answer, so that at most a share ``risk`` of the answers is far off.

        See :func:`batchensemble.threshold_for`. :meth:`accepts` uses the result.

        Args:
            risk: largest share of the answered examples with a larger error.
            confidence: confidence of the guarantee.
            by: the uncertainty that the threshold is on.
            tolerance: the largest acceptable error, in the unit of the target.

        Raises:
            ValueError: no rows were kept, see :meth:`calibrate`.
        """
        kept = self._kept()
        assert isinstance(kept.prediction, RegressionPrediction)
        self.threshold_ = threshold_for(
            kept.prediction, kept.targets, risk, confidence, by, tolerance=tolerance
        )
        return self.threshold_

    def _prediction(self, X: Any) -> RegressionPrediction:
        found = self._predict(X)
        assert isinstance(found, RegressionPrediction)
        return found

    def _targets(self, y: Any, *, reset: bool) -> Array:
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        found: Array = check_array(
            y, ensure_2d=False, ensure_all_finite="allow-nan", dtype=np.float64, input_name="y"
        )
        if found.ndim == 2 and found.shape[1] == 1:
            found = column_or_1d(found, warn=True)
        return found

    def _outputs(self, targets: Array) -> int:
        return 2 * (1 if targets.ndim == 1 else targets.shape[1])

    def _fit_arguments(self) -> dict[str, Any]:
        return {"loss": "gaussian_nll", "standardise_targets": True}


def of_target(prediction: RegressionPrediction, number: int) -> Normals:
    """Return the prediction of one of several targets."""
    variances = prediction.member_variances[..., number]
    return Normals(prediction.member_means[..., number], np.sqrt(variances))
