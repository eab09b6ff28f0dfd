"""A fitted estimator as the subject of a report."""

from __future__ import annotations

from typing import Any

from batchensemble.data.datasets import Data
from batchensemble.data.tables.encoding.cells import level_of
from batchensemble.ensembles.methods import method_of
from batchensemble.metrics import evaluate
from batchensemble.report.subject import Subject
from batchensemble.report.trained import subject_from_model
from batchensemble.tabular.rows import KeptRows


def subject_from_estimator(estimator: Any, rows: KeptRows, scored: str) -> Subject:
    """Return a fitted estimator as the subject of a page.

    Args:
        estimator: a fitted one.
        rows: that it is scored on.
        scored: what they are called.

    Raises:
        ValueError: it predicts several numbers for each example.
    """
    model, name = estimator.model_, type(estimator).__name__
    if rows.targets.ndim > 1:
        raise ValueError(
            f"a report is of one target, and this {name} has {rows.targets.shape[1]}; fit one for "
            "each"
        )
    classes = tuple(map(level_of, getattr(estimator, "classes_", ())))
    pair = rows.inputs, rows.targets
    data = Data(
        name, (pair[0][:0], pair[1][:0]), pair, estimator.encoding_.input_names, classes, True,
        encoding=estimator.encoding_, scored=scored,
    )  # fmt: skip
    method = method_of(model)
    assert method is not None
    return subject_from_model(
        model,
        data,
        evaluate(model, pair),
        estimator.history_,
        method=method.name,
        settings=estimator.recipe.to_dict(),
        config={"estimator": repr(estimator)},
        command=f"{estimator!r}.fit(X, y).report(path)",
        loss=None if classes else "gaussian_nll",
    )
