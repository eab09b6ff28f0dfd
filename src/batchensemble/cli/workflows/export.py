"""From a model's folder to one file that predicts, without the table that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from batchensemble.cli.workflows.decision import read_decision
from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.exports import Exported, export
from batchensemble.exports.example_rows import example_rows
from batchensemble.exports.export import OUTPUTS

FILE_NAMES = {"onnx": "model.onnx", "pt2": "model.pt2"}


def export_folder(
    path: Path,
    form: str,
    out: Path | None = None,
    *,
    members: bool = False,
    layout: Any = "auto",
    quantise: Any = None,
    quantiles: Sequence[float] = (),
    network: nn.Module | None = None,
    trust: Trust = False,
) -> Exported:
    """Write the file of a saved model of a table, with the threshold of ``decide`` if there is one.

    Args:
        path: of the model's folder.
        form: ``"onnx"`` or ``"pt2"``.
        out: the file; by default ``model.onnx`` or ``model.pt2`` in the folder.
        members: whether each member's prediction is an output.
        layout: see :func:`batchensemble.export`.
        quantise: alike.
        quantiles: levels of quantiles of numbers.
        network: the plain network, where the folder does not name one.
        trust: which code named by the folder may be imported, see :func:`batchensemble.load`.

    Raises:
        ValueError: the model does not say which columns it takes, or an argument does not fit.
        OSError: there is no such model, or the file cannot be written.
    """
    folder = ModelFolder(path)
    model = folder.load(None, network, trust)
    columns = folder.columns
    decision = read_decision(folder)
    model.class_names = columns.class_names
    example: Any
    if columns.encoding is None:
        example = [[0.0] * len(columns.feature_names)]
    else:
        model.encoding, model.feature_names = columns.encoding.to_dict(), columns.encoding.names
        example = example_rows(columns.encoding)
    return export(
        model,
        out or path / FILE_NAMES[form],
        example,
        OUTPUTS,
        members,
        layout,
        quantise,
        quantiles=quantiles,
        threshold=None if decision is None else decision.threshold,
    )
