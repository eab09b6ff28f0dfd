"""The subject of a report from a folder: a comparison, or one saved model."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.scored_rows import ScoredRows, notes_on, scores_of
from batchensemble.cli.workflows.settings import SETTINGS_FILE
from batchensemble.comparison.files import RESULTS, RunFiles, read_results
from batchensemble.comparison.planes import make_plane
from batchensemble.comparison.results import Comparison, Settings, read_run, run_fingerprint
from batchensemble.data.datasets import Data, load_dataset
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.encoding.encoding import ColumnChoices
from batchensemble.ensembles.saving import CONFIG
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.report.subject import (
    Subject,
    subject_from_comparison,
)
from batchensemble.report.trained import subject_from_model
from batchensemble.training.history import History

MOST_SEEDS = 10_000  # of a comparison; there is one file per seed and method


def subject_from_folder(
    folder: Path,
    source: str | None = None,
    target: str | None = None,
    *,
    dialect: Dialect | None = None,
    network: nn.Module | None = None,
    trust: Trust = False,
) -> Subject:
    """Return the subject of the report of a folder.

    Args:
        folder: written by ``compare`` or ``train``.
        source: for a comparison, the new path of its data if they were moved; for a model, a file
            or a named data set to evaluate it on, by default the rows held out from training.
        target: the column of targets; by default as in training.
        network: the plain network of a model, where its folder does not name one.
        trust: which code named by a model's folder may be imported, see
            :func:`batchensemble.load`.
        dialect: how CSV files are written; what it leaves open is detected.

    Raises:
        ValueError: the folder has neither, or the data do not fit.
        OSError: a file cannot be read.
    """
    if (folder / RESULTS).is_file():
        return subject_from_comparison(_comparison(folder, source, target, dialect))
    if (folder / CONFIG).is_file():
        return _subject_from_model(ModelFolder(folder, dialect), source, target, network, trust)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give one written by compare or train"
        )
    raise ValueError(
        f"{folder} holds neither {RESULTS} of a comparison nor {CONFIG} of a model; give a folder "
        "that batchensemble compare or train wrote"
    )


def _comparison(
    folder: Path, source: str | None, target: str | None, dialect: Dialect | None
) -> Comparison:
    results = read_results(folder)
    asked, described = results["settings"], results["data"]
    recipe = results.get("recipe")
    name = described.get("path") or described["name"]  # files of earlier versions have no path
    if recipe is not None:
        raise ValueError(
            f"the recipe in {folder} stores no files of its runs; write its report again with "
            f"batchensemble compare --recipe {recipe}"
        )
    values: dict[str, Any] = {
        key: tuple(each) if isinstance(each, list) else each for key, each in asked.items()
    }
    settings = Settings(**values)
    failures, explanation = results.get("failures", []), results.get("explanation", "")
    texts = isinstance(failures, list) and all(isinstance(each, str) for each in failures)
    if settings.seeds > MOST_SEEDS or not texts or not isinstance(explanation, str):
        raise ValueError(f"{folder / RESULTS} is not of a comparison; run it again")
    target = target or described.get("target")
    if source is None and target is not None and not Path(name).exists():
        raise FileNotFoundError(
            f"the comparison in {folder} ran on {name}, which does not exist; give --data PATH"
        )
    task = described.get("task") if target is not None else None
    known = Dialect.from_settings(described.get("dialect"))
    data = load_dataset(
        source or name,
        target,
        task,
        (dialect or Dialect()).over(known),
        _choices(described.get("choices"), folder),
        layout="codes" if settings.architecture == "table" else "plain",
        stopping=settings.patience is not None,
    )
    found = _runs(data, settings, folder / "runs")
    if not found.runs:
        raise ValueError(
            f"none of the runs in {folder / 'runs'} is of {data.name} with these settings and "
            "versions; run the comparison again"
        )
    # Failures of then have their reason; runs that are only missing are added.
    missing = [each for each in found.failures if not _is_listed(each, failures)]
    return replace(
        found,
        failures=[*failures, *missing],
        interrupted=bool(results.get("interrupted")),
        explanation=explanation,
    )


def _choices(written: Any, folder: Path) -> ColumnChoices:
    """Return what a comparison was told about the columns of its file."""
    try:
        return ColumnChoices(**{name: tuple(names) for name, names in (written or {}).items()})
    except (TypeError, AttributeError):
        raise ValueError(f"{folder / RESULTS} is not of a comparison; run it again") from None


def _runs(data: Data, settings: Settings, folder: Path) -> Comparison:
    """Return the comparison of the runs in a folder; ``failures`` lists missing ones."""
    comparison = Comparison(settings, data, make_plane(data))
    files = RunFiles(folder, run_fingerprint(settings, data))
    for seed in range(settings.seeds):
        for method in settings.methods:
            run = read_run(files, method, seed)
            if run is None:
                reason = f"no file of it in {folder}, or one of other data, settings or versions"
                comparison.failures.append(f"{method}, seed {seed}: {reason}")
            else:
                comparison.read += 1
                comparison.runs.append(run)
    return comparison


def _is_listed(missing: str, failures: list[str]) -> bool:
    run = missing.partition(":")[0]
    return any(failure.startswith(f"{run}:") for failure in failures)


def _subject_from_model(
    folder: ModelFolder,
    source: str | None,
    target: str | None,
    network: nn.Module | None,
    trust: Trust,
) -> Subject:
    model, settings = folder.load(network=network, trust=trust), folder.settings
    rows = folder.rows(model, source, target)
    rows.notes += notes_on(model.loss)
    data, path = _data(folder, rows, target), folder.path / "history.json"
    return subject_from_model(
        model,
        data,
        scores_of(model, rows),
        History.read(path) if path.is_file() else History(),
        method=folder.config["method"],
        settings=settings,
        config=folder.config,
        command=_commands(folder.path, bool(settings), source, target),
        loss=settings.get("loss") if data.task == "regression" else None,
        notes=rows.notes,
    )


def _data(folder: ModelFolder, rows: ScoredRows, target: str | None) -> Data:
    """Return the rows that the model is evaluated on, in memory, and its training data if known."""
    columns, held_out = folder.columns, rows.arrays()
    nothing = tuple(each[:0] for each in held_out)
    return Data(
        rows.name,
        nothing if rows.training is None else rows.training,
        held_out,
        columns.input_names,
        columns.class_names,
        columns.encoding is not None,
        target or columns.target,
        columns.encoding,
        rows.kind,
        columns.dialect,
    )


def _commands(folder: Path, trained_here: bool, source: str | None, target: str | None) -> str:
    again = ["batchensemble", "report", str(folder)]
    again += ["--data", source] if source else []
    again += ["--target", target] if target else []
    if not trained_here:
        return shlex.join(again)
    train = ["batchensemble", "train", "--config", str(folder / SETTINGS_FILE)]
    return f"{shlex.join([*train, '--out', f'{folder}-again'])}\n{shlex.join(again)}"
