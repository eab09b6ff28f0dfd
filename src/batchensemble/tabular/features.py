"""What a user calls ``X``, as a table of columns, checked on scikit-learn's terms."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names, _check_n_features, validate_data

from batchensemble.data.tables.columns import ColumnarTable, as_table


def read_features(
    estimator: BaseEstimator, X: Any, *, reset: bool, names: tuple[str, ...] = ()
) -> ColumnarTable:
    """Return the features of examples as columns.

    Args:
        estimator: what is fitted; it remembers the names and the number of the columns.
        X: a data frame of pandas or polars, an Arrow table, or an array ``[examples, features]``
            of numbers, words or both.
        reset: remember the columns; otherwise compare them with those that it remembers.
        names: what the columns of an array are called, if the estimator was fitted on names; they
            are taken in that order, as scikit-learn does, which warns of it.

    Raises:
        TypeError, ValueError: ``X`` is not such a table, or has other columns.
    """
    table = as_table(X)
    if table is not None:
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, X, reset=reset)
        for many, name, fewest in ((table.rows, "sample", 1), (len(table.names), "feature", 1)):
            if many < fewest:
                raise ValueError(
                    f"Found array with {many} {name}(s) (shape=({table.rows}, "
                    f"{len(table.names)})) while a minimum of {fewest} is required."
                )
        return table
    if isinstance(X, (list, tuple)):
        X = _listed(X)
    X = validate_data(estimator, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
    columns = {name: number for number, name in enumerate(names or map(str, range(X.shape[1])))}
    return ColumnarTable(tuple(columns), len(X), lambda name: X[:, columns[name]])


def _listed(X: Any) -> Any:
    """Return nested lists as an array that keeps numbers beside words as numbers."""
    found = np.asarray(X) if not any(np.ndim(each) > 1 for each in X) else X
    return np.array(X, dtype=object) if getattr(found, "dtype", np.dtype("f")).kind == "U" else X


def has_names(X: Any) -> bool:
    """Return whether the columns of a user's table have names."""
    return as_table(X) is not None
