"""What a model says of itself, for its card: its parts and its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from batchensemble.comparison.wording import method_title
from batchensemble.core.printed_tables import formatted
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.encoding.treatment import Treatment
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.report import count_parameters
from batchensemble.ensembles.methods import method_of
from batchensemble.ensembles.saving.architectures import record_of
from batchensemble.ensembles.saving.hub import is_hub_name
from batchensemble.losses import BinaryCrossEntropy, EnsembleLoss, Standardised
from batchensemble.losses.as_json import to_dict
from batchensemble.losses.base import Custom
from batchensemble.losses.classes import ClassLoss
from batchensemble.losses.numbers import NumberLoss
from batchensemble.report.card.escaping import shortened

MOST_LISTED = 30  # columns, or classes
LEVELS_LISTED = 6
UNCERTAINTY_PARTS = "`prediction.total`, `.aleatoric` and `.epistemic` are its uncertainty"
READ_BY = {
    "classes": f"`prediction.probs` are the classes' probabilities; {UNCERTAINTY_PARTS}, in nats.",
    "labels": f"`prediction.probs` are the labels' probabilities; {UNCERTAINTY_PARTS}, in nats.",
    "numbers": f"`prediction.mean` is the prediction; {UNCERTAINTY_PARTS}, as variances.",
}


def title_of(model: Ensemble) -> str:
    """Return a title for the card of a model that was given none.

    Example:
        >>> import torch
        >>> from batchensemble import BatchEnsemble, Single
        >>> net = torch.nn.Linear(2, 3)
        >>> title_of(BatchEnsemble(net, 4)), title_of(Single(net))
        ('BatchEnsemble with 4 members', 'Single network')
    """
    method = method_of(model)
    title = type(model).__name__ if method is None else method_title(method.name)
    return title if model.members == 1 else f"{title} with {model.members} members"


def output_kind(model: Ensemble, scores: Mapping[str, Any] | None = None) -> str | None:
    """Return what a model predicts: ``"classes"``, ``"labels"`` or ``"numbers"``, if that is known.

    Args:
        model: any ensemble.
        scores: its scores, if there are some.
    """
    for name, kind in (("rmse", "numbers"), ("exact_match", "labels"), ("accuracy", "classes")):
        if scores is not None and name in scores:
            return kind
    loss = _inner(model.loss)
    if isinstance(loss, BinaryCrossEntropy):
        return "labels"
    if isinstance(loss, NumberLoss):
        return "numbers"
    if isinstance(loss, ClassLoss) and not isinstance(loss, Custom):
        return "classes"
    return None


def parts_of_model(
    model: Ensemble, plain: nn.Module, kind: str | None, class_names: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Return what a model is made of, as pairs of title and text.

    Args:
        model: any ensemble.
        plain: one of its members as a plain network.
        kind: what it predicts, if that is known.
        class_names: the classes in the order of their numbers, if they have names.
    """
    method, counts = method_of(model), model.parameter_counts()
    network = _network(plain)
    title = type(model).__name__ if method is None else method_title(method.name)
    rows = [("Method", title), ("Members", str(model.members))]
    rows += [("Network", network)] if network else []
    ratio = f"{counts['parameter_ratio']:.2f} times those of one network"
    trained = count_parameters(model, trained=True)
    frozen = f"; {trained:,} of them trained" if trained < counts["parameters"] else ""
    rows.append(("Parameters", f"{counts['parameters']:,}, {ratio}{frozen}"))
    if kind is not None:
        names = class_names if kind == "classes" else model.target_names or ()
        rows.append(("Predicts", _predicted(kind, names)))
    if model.loss is not None:
        rows.append(("Loss", _loss(model.loss)))
    if model.calibrator is not None:
        pooling = f"{model.calibrator.pooling} the mean over the members"
        rows.append(("Calibrated by", f"{model.calibrator.method}, {pooling}"))
    if model.choice is not None:
        rows.append(("Chosen members", str(model.choice)))
    return rows


def table_encoding(model: Ensemble) -> TableEncoding | None:
    """Return what the model does with the columns of a table, if it stores that."""
    return None if model.encoding is None else TableEncoding.from_dict(model.encoding)


def column_rows(model: Ensemble, encoding: TableEncoding | None) -> list[dict[str, str]]:
    """Return the columns that a model takes, as text, and those that it leaves out.

    Args:
        model: any ensemble.
        encoding: what is done with its columns, if that is known.
    """
    if encoding is None:
        names = model.feature_names or ()
        return [
            {"name": shortened(name), "kind": "number", "values": ""}
            for name in names[:MOST_LISTED]
        ]
    return [
        {"name": shortened(one.name), "kind": one.kind, "values": _values(one)}
        for one in encoding.treatments[:MOST_LISTED]
    ]


def base_of(model: Ensemble) -> str | None:
    """Return the name on the Hub of the network that was adapted, if transformers knows it."""
    config = getattr(model.network, "config", None)
    name = getattr(config, "_name_or_path", None)
    known = isinstance(name, str) and is_hub_name(name) and not Path(name).exists()
    return name if model.base is not None and known else None


def _inner(loss: EnsembleLoss | None) -> EnsembleLoss | None:
    return loss.loss if isinstance(loss, Standardised) else loss


def _loss(loss: EnsembleLoss) -> str:
    """Return the name of a loss, and its settings that are not the defaults."""
    inner = _inner(loss)
    written = None if inner is None else to_dict(inner)
    if written is None:
        return type(inner).__name__
    defaults = {each.name: each.default for each in fields(inner)}  # type: ignore[arg-type]
    changed = [
        f"{name}={value}"
        for name, value in written["settings"].items()
        if value != defaults[name] and name != "class_weight"
    ]
    if written["settings"].get("class_weight") is not None:
        changed.append("weighted by class")
    return ", ".join([written["name"].replace("_", " "), *changed])


def _network(plain: nn.Module) -> str:
    """Return what one network is, if it is one that the library knows or of one class."""
    record = record_of(plain) or {}
    if "mlp" in record:
        return f"multilayer perceptron, {' → '.join(map(str, record['mlp']))}"
    if "table" in record:
        hidden = ", ".join(map(str, record["table"]["hidden"]))
        return f"network of tables, hidden layers of {hidden}"
    name = type(plain).__name__
    return "" if name == "Sequential" else name


def _predicted(kind: str, names: Sequence[str]) -> str:
    if not names:
        return {"classes": "a class", "labels": "several labels", "numbers": "a number"}[kind]
    shown = ", ".join(shortened(str(name)) for name in names[:MOST_LISTED])
    more = f", and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    return f"{len(names):,} {'classes' if kind == 'classes' else 'targets'}: {shown}{more}"


def _values(one: Treatment) -> str:
    """Return the values of a column in the training data, as far as they are stored."""
    if one.kind == "left out":
        return one.note
    if one.kind == "category":
        more = f", and {len(one.levels) - LEVELS_LISTED:,} more" * (len(one.levels) > LEVELS_LISTED)
        text = ", ".join(map(shortened, one.levels[:LEVELS_LISTED])) + more
    elif one.kind == "date":
        text = f"written as {one.form}"
    elif one.kind == "truth value":
        text = "0 or 1"
    elif one.knots:
        text = f"{formatted(one.knots[0], '.6g')} to {formatted(one.knots[-1], '.6g')}"
    else:
        text = f"mean {formatted(one.mean)}, deviation {formatted(one.scale)}"
    return f"{text}; may be missing" if one.gaps else text
