"""The parameters of the estimators, which stand in them as they were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.base import BaseEstimator

from batchensemble.training.table_recipe import TableRecipe


class TableParameters(BaseEstimator):  # type: ignore[misc]
    """The parameters of both estimators; the classifier describes them."""

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
        self.members = members
        self.method = method
        self.hidden = hidden
        self.dropout = dropout
        self.init = init
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.patience = patience
        self.stop_on = stop_on
        self.time_budget = time_budget
        self.fast = fast
        self.choose = choose
        self.refit = refit
        self.validation_fraction = validation_fraction
        self.calibration_fraction = calibration_fraction
        self.drop = drop
        self.keep = keep
        self.categorical = categorical
        self.numeric = numeric
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    @property
    def recipe(self) -> TableRecipe:
        """How the ensemble is built and trained, as a record that prints itself."""
        return TableRecipe(
            method=self.method,
            members=self.members,
            hidden=tuple(self.hidden),
            dropout=self.dropout,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            patience=self.patience,
            batches="split" if self.fast else None,
            stop_on=self.stop_on,
            init=self.init,
        )

    def _check_arguments(self) -> None:
        between = ("validation_fraction", "calibration_fraction")
        for name in between:
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
        if sum(getattr(self, name) for name in between) >= 1:
            raise ValueError(
                "validation_fraction and calibration_fraction must leave rows to train on, got "
                f"{self.validation_fraction} and {self.calibration_fraction}"
            )
