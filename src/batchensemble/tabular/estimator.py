"""What the classifier and the regressor have in common: parts of rows, training, prediction."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from sklearn.base import is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import Array, ColumnarTable, TableWarning
from batchensemble.data.tables.encoding.encoding import (
    ColumnChoices,
    TableEncoding,
    fit_encoding,
    values_of,
)
from batchensemble.data.tables.encoding.leaks import copies_of_target
from batchensemble.decisions import Threshold
from batchensemble.decisions.members import choose_members
from batchensemble.ensembles import Ensemble
from batchensemble.predictions import AnyPrediction
from batchensemble.predictions.predict import predict
from batchensemble.tabular.features import has_names, read_features
from batchensemble.tabular.parameters import TableParameters
from batchensemble.tabular.publishing import PublishableEstimator
from batchensemble.tabular.rows import FEWEST_ROWS, KeptRows, known_rows, part_rows
from batchensemble.tabular.saving import load_estimator, save_estimator
from batchensemble.training.fit import fit
from batchensemble.training.history import History
from batchensemble.training.table_recipe import build_table_ensemble

MOST_TOLD = 5  # columns in a warning
CHOICES = ("drop", "keep", "categorical", "numeric")
EPOCHS_OF_FEW = 50  # passes over so few rows


class TableEstimator(TableParameters, PublishableEstimator, ABC):
    """What the classifier and the regressor have in common; the classifier describes the rest."""

    model_: Ensemble
    encoding_: TableEncoding
    history_: History
    kept_: KeptRows | None
    threshold_: Threshold

    # What differs between classes and numbers.

    @abstractmethod
    def _targets(self, y: Any, *, reset: bool) -> Array:
        """Return targets as the loss takes them: class numbers, or numbers."""

    @abstractmethod
    def _outputs(self, targets: Array) -> int:
        """Return the number of outputs of the network."""

    @abstractmethod
    def _fit_arguments(self) -> dict[str, Any]:
        """Return the arguments of ``fit`` that depend on the kind of targets."""

    def _loss_targets(self, targets: Array) -> Array:
        """Return known targets in the type that the loss takes."""
        return targets

    # Training.

    def _fit(self, X: Any, y: Any, sample_weight: Any, eval_set: Any) -> None:
        self._check_arguments()
        again = self.warm_start and hasattr(self, "model_")
        table = self._read(X, reset=not again)
        targets = self._targets(y, reset=not again)
        known, weights = known_rows(table.rows, targets, sample_weight)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if not (again and hasattr(self, "_seed_of_parts")):  # which a folder does not hold
            self._seed_of_parts = seed  # a warm start keeps the same rows from training
        parts = part_rows(
            targets,
            known,
            stopping=self.validation_fraction if eval_set is None else 0.0,
            calibration=self.calibration_fraction,
            classes=is_classifier(self),
            seed=self._seed_of_parts,
        )
        if not again:
            self._build(X, table, targets, parts.training, seed)
        inputs = self.encoding_.encode(Block(table.rows, values_of(table)), "X")
        validation: Any = None
        if eval_set is not None:
            validation = self._validation(eval_set)
        elif len(parts.stopping):
            validation = inputs[parts.stopping], self._loss_targets(targets[parts.stopping])
        arguments = self._arguments(len(parts.training), validation, seed)
        self._train(inputs, targets, weights, parts.training, validation, arguments)
        if self.choose is not None and validation is not None:
            self.model_ = choose_members(self.model_, validation, self.choose)
        rows, kept = parts.calibration, None
        if len(rows):
            kept = self._predicted(inputs[rows], self._loss_targets(targets[rows]))
        self._decide_on(kept)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        """Train one epoch on some examples; the first call decides what becomes of the columns."""
        self._check_arguments()
        first = not hasattr(self, "model_")
        table = self._read(X, reset=first)
        targets = self._targets(y, reset=first)
        known, weights = known_rows(table.rows, targets, sample_weight)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if first:
            self._build(X, table, targets, known, seed)
            self._seed_of_parts = seed
        self._decide_on(None)  # what an earlier fit kept may be among these examples
        inputs = self.encoding_.encode_table(table, "X")
        arguments = {**self._arguments(len(known), None, seed), "epochs": 1}
        if not first:
            arguments |= {"loss": self.model_.loss, "standardise_targets": False}
        self._train(inputs, targets, weights, known, None, arguments)

    def _build(
        self, X: Any, table: ColumnarTable, targets: Array, training: Array, seed: int
    ) -> None:
        """Decide what becomes of the columns, and make the untrained ensemble."""
        if table.rows == 1:
            raise ValueError("training needs several examples, got 1 sample")
        block = Block(table.rows, values_of(table)).take(training)
        named = has_names(X)
        names, where = table.names, "X"
        choices = ColumnChoices(*(tuple(map(str, getattr(self, each))) for each in CHOICES))
        if not named:  # who gives an array has chosen its columns
            choices = replace(choices, keep=names)
        self.encoding_ = fit_encoding(lambda: [block], names, where, choices=choices)
        inputs = self.encoding_.encode(block, where)
        self._tell_of_left_out()
        one = targets.ndim == 1
        for name in copies_of_target(self.encoding_, inputs, targets[training]) if one else ():
            warnings.warn(
                f"column {name!r} tells the target exactly; drop it if it is not known for new "
                "examples",
                TableWarning,
                stacklevel=4,
            )
        self.model_ = build_table_ensemble(
            self.recipe, self.encoding_, inputs, self._outputs(targets), seed=seed
        )
        if named:
            self.model_.feature_names = self.encoding_.names
            self.model_.encoding = self.encoding_.to_dict()

    def _tell_of_left_out(self) -> None:
        """Warn of columns that are not used though nobody asked for that."""
        found = [one for one in self.encoding_.left_out if one.name not in map(str, self.drop)]
        if found:
            shown = ", ".join(f"{one.name!r} ({one.note})" for one in found[:MOST_TOLD])
            more = f", and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
            warnings.warn(f"columns that are left out: {shown}{more}", TableWarning, stacklevel=5)

    def _read(self, X: Any, *, reset: bool) -> ColumnarTable:
        """Return features as columns; those of an array have the names of the training's."""
        names = () if reset else tuple(one.name for one in self.encoding_.treatments)
        return read_features(self, X, reset=reset, names=names)

    def _validation(self, eval_set: Any) -> tuple[Array, Array]:
        X, y = eval_set
        table = self._read(X, reset=False)
        targets = self._targets(y, reset=False)
        known, _ = known_rows(table.rows, targets)
        inputs = self.encoding_.encode_table(table, "X")
        return inputs[known], self._loss_targets(targets[known])

    def _arguments(self, rows: int, validation: Any, seed: int) -> dict[str, Any]:
        """Return the arguments of ``fit`` for a number of training rows."""
        recipe = self.recipe
        if validation is None:
            recipe = replace(recipe, epochs=min(recipe.epochs, EPOCHS_OF_FEW))
        found = {**recipe.fit_arguments(rows), **self._fit_arguments(), "seed": seed}
        if validation is None:
            del found["patience"]
        elif self.refit:
            found["refit"] = True
        if self.time_budget is not None:
            found["time_budget"] = self.time_budget
        return found

    def _train(
        self,
        inputs: Array,
        targets: Array,
        weights: Array | None,
        rows: Array,
        validation: Any,
        arguments: dict[str, Any],
    ) -> None:
        data: tuple[Array, ...] = (inputs[rows], self._loss_targets(targets[rows]))
        if weights is not None:
            data = (*data, weights[rows])
        self.model_.to(self._device()).train()
        with self._threads():
            self.history_ = fit(
                self.model_,
                data,
                validation=validation,
                progress=None if self.verbose else False,
                label=type(self).__name__,
                **arguments,
            )
        self.model_.eval()
        self.n_iter_ = self.history_.epochs

    def _decide_on(self, kept: KeptRows | None) -> None:
        """Set the rows that decisions are fitted on; a threshold of others holds no longer."""
        self.kept_ = kept
        if hasattr(self, "threshold_"):
            del self.threshold_

    def _predicted(self, inputs: Array, targets: Array) -> KeptRows:
        """Return rows with the prediction of the model as it is."""
        with self._threads():
            return KeptRows(inputs, predict(self.model_, inputs), targets)

    # Prediction.

    def _predict(self, X: Any) -> AnyPrediction:
        """Return the prediction of each example."""
        check_is_fitted(self, "model_")
        table = self._read(X, reset=False)
        inputs = self.encoding_.encode_table(table, "X")
        with self._threads():
            return predict(self.model_, inputs)

    def predict_uncertainty(self, X: Any) -> Any:
        """Return the uncertainty of each example as a data frame.

        Args:
            X: features of examples, as in :meth:`fit`.

        Returns:
            A frame with a row an example and the columns ``total``, ``aleatoric`` and
            ``epistemic``: entropies in nats for classes, variances in the square of the target's
            unit for numbers. It has the index of ``X``, if that is a frame of pandas.
        """
        import pandas as pd

        found = self._predict(X)
        parts = {name: getattr(found, name) for name in ("total", "aleatoric", "epistemic")}
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(parts, index=index)

    def _kept(self) -> KeptRows:
        check_is_fitted(self, "model_")
        if self.kept_ is None:
            raise ValueError(
                "no rows were kept to fit this on: give calibration_fraction above 0 and at least "
                f"{FEWEST_ROWS} rows, or call calibrate(X, y) with rows that were not trained on"
            )
        return self.kept_

    def calibrate(self, X: Any, y: Any) -> TableEstimator:
        """Fit intervals, sets and thresholds on rows of your own instead of those kept by ``fit``.

        Args:
            X: features of examples that were not trained on.
            y: their targets.

        Returns:
            The estimator itself.
        """
        check_is_fitted(self, "model_")
        self._decide_on(self._predicted(*self._validation((X, y))))
        return self

    def accepts(self, X: Any) -> Bool[np.ndarray, "examples"]:
        """Return which examples may be answered by the threshold that :meth:`decide` found.

        Raises:
            ValueError: :meth:`decide` was not called.
        """
        found: Threshold | None = getattr(self, "threshold_", None)
        if found is None:
            raise ValueError("there is no threshold yet: call decide(risk=...) first")
        prediction: Any = self._predict(X)
        return found.accepts(prediction)

    def report(self, path: str | Path, X: Any = None, y: Any = None) -> Path:
        """Write a page about the model, with figures, in one file.

        Args:
            path: of the page, such as ``"page.html"``.
            X: features of examples that it is scored on; by default the rows kept from training.
            y: their targets.

        Returns:
            The path.

        Raises:
            ValueError: no rows were kept and none are given, or there are several targets.
        """
        # Figures and templates are slow to import.
        from batchensemble.report.page import write_single_page
        from batchensemble.tabular.reporting import subject_from_estimator

        check_is_fitted(self, "model_")
        if X is None:
            rows, name = self._kept(), "rows kept from training"
        else:
            rows, name = self._predicted(*self._validation((X, y))), "given rows"
        return write_single_page(subject_from_estimator(self, rows, name), Path(path))

    def save(self, folder: str | Path) -> Path:
        """Write the fitted estimator into a folder without a pickle; :meth:`load` reads it.

        The folder is a model's, too: ``batchensemble predict`` and ``inspect`` take it.

        Returns:
            The folder.

        Raises:
            ValueError: the classes are neither numbers, truth values nor words.
            OSError: the folder cannot be written.
        """
        return save_estimator(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Any:
        """Read an estimator that :meth:`save` wrote; nothing that the folder names is run.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: it is no estimator of this class, or is damaged.
        """
        return load_estimator(folder, cls)

    def _device(self) -> str:
        if self.device is not None:
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Use ``n_jobs`` threads; by default as many as torch uses."""
        before = torch.get_num_threads()
        if self.n_jobs is not None:
            torch.set_num_threads(self.n_jobs if self.n_jobs > 0 else torch.get_num_threads())
        try:
            yield
        finally:
            torch.set_num_threads(before)
