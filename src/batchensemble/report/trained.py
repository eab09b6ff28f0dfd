"""One trained model as the subject of a report: a comparison of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from batchensemble.comparison.cost import measure_cost
from batchensemble.comparison.planes import make_plane
from batchensemble.comparison.results import Comparison, Run, Settings
from batchensemble.comparison.wording import method_title
from batchensemble.data.datasets import Data
from batchensemble.ensembles import Ensemble
from batchensemble.metrics import Scores
from batchensemble.metrics.encoded_columns import column_dependence
from batchensemble.predictions import MultiLabelPrediction, Prediction, RegressionPrediction
from batchensemble.predictions.predict import predict
from batchensemble.report.subject import Subject, counted, predicted, text_of
from batchensemble.training.history import History


def subject_from_model(
    model: Ensemble,
    data: Data,
    scores: Scores,
    history: History,
    *,
    method: str,
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
    command: str,
    loss: str | None = None,
    notes: Sequence[str] = (),
) -> Subject:
    """Return a trained model as the subject of a page.

    Args:
        model: the model.
        data: the rows that it is scored on, and its training rows if they are known.
        scores: of the model on these rows.
        history: of its training.
        method: the name of its method.
        settings: of its training, by name.
        config: what else the page stores about it.
        command: what makes the page again.
        loss: of a training on numbers.
        notes: caveats, a sentence each.

    Raises:
        ValueError: the model predicts several things for each example.
    """
    run = _run(model, data, scores, history, method, settings)
    options = Settings((method,), model.members, max(1, history.epochs), loss=loss)
    comparison = Comparison(options, data, None, [run])
    if run.plane is not None:
        comparison.plane = make_plane(_with_training_part(data))
    if data.encoding is not None and len(data.encoding.names) > 1:
        comparison.dependence = column_dependence(
            model, data.encoding, *data.held_out, data.class_names
        )
    return Subject(
        comparison,
        "Trained model",
        f"{method_title(method)}, {counted(model.members, 'member')}, "
        f"{counted(history.epochs, 'epoch')}; "
        f"scored on {counted(len(data.held_out[0]), 'example')}, "
        f"{counted(len(data.columns), 'feature')}, {predicted(data)}"
        + "".join(f". {note.rstrip('.')}" for note in notes)
        + ("." if notes else ""),
        command,
        tuple((name.replace("_", " "), text_of(each)) for name, each in settings.items()),
        {**comparison.to_dict(), "settings": dict(settings), "model": dict(config)},
        () if data.encoding is None else tuple(map(_sentence, data.encoding.notes())),
    )


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _run(
    model: Ensemble,
    data: Data,
    scores: Scores,
    history: History,
    method: str,
    settings: Mapping[str, Any],
) -> Run:
    plane = make_plane(_with_training_part(data))
    examples = settings.get("batch_size") or 128
    inputs, targets = (torch.from_numpy(part[:examples]) for part in data.held_out)
    if data.task == "regression":
        targets = targets.float()
    return Run(
        method,
        settings.get("seed") or 0,
        scores,
        measure_cost(model, inputs, targets, history),
        history,
        _one_an_example(model, data.held_out[0]),
        None if plane is None else _one_an_example(model, plane.points),
    )


def _one_an_example(model: Ensemble, X: np.ndarray) -> Prediction | RegressionPrediction:
    prediction = predict(model, X)
    if isinstance(prediction, MultiLabelPrediction) or prediction.total.ndim != 1:
        raise ValueError(
            "a report needs a model that predicts a class or a number for each example, got a "
            f"{type(prediction).__name__} of the shape {list(prediction.total.shape)}; "
            "batchensemble evaluate scores it"
        )
    return prediction


def _with_training_part(data: Data) -> Data:
    """Return data with rows to compute principal components from."""
    return data if len(data.train[0]) else replace(data, train=data.held_out)
