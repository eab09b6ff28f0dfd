"""The card of a model folder: its scores, its decision and its settings in one text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from batchensemble.cli.workflows.decision import Decision, read_decision
from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.scored_rows import scores_of
from batchensemble.cli.workflows.wording import in_words
from batchensemble.data.tables.dialects import Dialect
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.report.card.evaluated import MeasuredScores, evaluated_on
from batchensemble.report.card.model_card import CardDetails, card_of
from batchensemble.training.history import History

ESTIMATORS = ("BatchEnsembleClassifier", "BatchEnsembleRegressor")
PATHS = ("data", "validation")  # settings that name files of this machine


def card_of_folder(
    path: Path,
    source: str | None = None,
    target: str | None = None,
    *,
    scores: bool = True,
    name: str | None = None,
    title: str | None = None,
    license: str | None = None,
    dialect: Dialect | None = None,
    network: nn.Module | None = None,
    trust: Trust = False,
) -> str:
    """Return the model card of a folder.

    Args:
        path: the model's folder.
        source: rows that it is scored on, see
            :meth:`~batchensemble.cli.workflows.model_folder.ModelFolder.rows`; by default those
            held out from training.
        target: the column of targets; by default that of the training.
        scores: whether to score it.
        name: its name on the Hugging Face Hub, for the lines that load it.
        title: of the card; by default the method and the number of members.
        license: identifier of the model's license.
        dialect: how CSV files are written; what it leaves open is detected.
        network: the plain network, where the folder does not name one.
        trust: which code named by the folder may be imported, see :func:`batchensemble.load`.

    Raises:
        ValueError: the data do not fit the model, or which rows it was trained on is not known.
        OSError: there is no such model or file.
    """
    folder = ModelFolder(path, dialect)
    model, decision = folder.load(network=network, trust=trust), read_decision(folder)
    history = folder.path / "history.json"
    details: dict[str, Any] = {
        "name": name,
        "title": title,
        "license": license,
        "settings": _settings(folder),
        "history": History.read(history) if history.is_file() else None,
        "decisions": () if decision is None else _sentences(decision),
        "decided": decision is not None and decision.threshold is not None,
        "estimator": _estimator(folder),
        "network": (folder.config["network"] or {}).get("function"),
        "encoding": folder.columns.encoding,
        "class_names": tuple(folder.columns.class_names),
    }
    if not scores:
        return card_of(model, None, CardDetails(**details))
    found, about = _scored(folder, model, source, target)
    return card_of(model, found, CardDetails(**details, **about))


def _scored(
    folder: ModelFolder, model: Ensemble, source: str | None, target: str | None
) -> tuple[MeasuredScores, dict[str, Any]]:
    """Return the scores of a model, and what the rows are; large files have no intervals."""
    rows = folder.rows(model, source, target)
    if rows.whole is None:
        scores = scores_of(model, rows)
        found = MeasuredScores(scores, rows.rows)
    else:
        found = evaluated_on(model, rows.whole)
    kind = rows.kind if rows.held_out else "rows"
    return found, {"data": rows.name, "scored": kind, "notes": rows.notes}


def _sentences(decision: Decision) -> tuple[str, ...]:
    """Return a decision as sentences, without one on a threshold that it does not have."""
    parts = [each for each in in_words(decision) if decision.threshold or each[0] != "Answer"]
    fitted = f"Fitted on {decision.data}, by batchensemble decide."
    return (*(f"{title}: {text}" for title, text in parts), fitted)


def _settings(folder: ModelFolder) -> dict[str, Any]:
    """Return the settings of the training, with the names of files in place of their paths."""
    return {
        name: Path(value).name if name in PATHS and isinstance(value, str) else value
        for name, value in folder.settings.items()
    }


def _estimator(folder: ModelFolder) -> str | None:
    """Return the class of the estimator that a folder holds, if it holds one."""
    record = (folder.config.get("data") or {}).get("estimator")
    kind = record.get("kind") if isinstance(record, dict) else None
    return kind if kind in ESTIMATORS else None
