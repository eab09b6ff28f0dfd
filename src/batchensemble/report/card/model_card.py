"""``model_card``: what a model is, its scores, when not to trust it, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import nn

from batchensemble.comparison.wording import capitalised
from batchensemble.core.printed_tables import formatted
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.decisions import Threshold
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble
from batchensemble.ensembles.saving import versions
from batchensemble.report.card.about import (
    READ_BY,
    base_of,
    column_rows,
    output_kind,
    parts_of_model,
    table_encoding,
    title_of,
)
from batchensemble.report.card.escaping import Raw, escaped
from batchensemble.report.card.evaluated import (
    MeasuredScores,
    class_rows,
    evaluated_on,
    score_rows,
)
from batchensemble.report.card.front_matter import TASK_OF_KIND, front_matter
from batchensemble.report.card.limits import limits
from batchensemble.report.card.loading import loading
from batchensemble.report.subject import text_of
from batchensemble.training.history import History
from batchensemble.training.plan import changed_options

WRITTEN = "<!-- Written by batchensemble, and replaced by it as long as this line is here. -->"
MAIN_OPTIONS = ("epochs", "batch_size", "lr", "optimizer", "seed")
FOLDER = "path/to/this/folder"


@dataclass(frozen=True)
class CardDetails:
    """What an author knows of a model beside the model itself; see :func:`model_card`."""

    title: str | None = None
    description: str | None = None
    name: str | None = None
    data: str | None = None
    license: str | None = None
    task: str | None = None
    base_model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: History | None = None
    decisions: Sequence[str] = ()
    notes: Sequence[str] = ()
    estimator: str | None = None
    network: str | None = None
    adapter: bool = False
    decided: bool = False
    encoding: TableEncoding | None = None
    class_names: Sequence[str] = ()
    scored: str = "examples"


def model_card(
    model: Ensemble,
    evaluated: Any = None,
    *,
    title: str | None = None,
    description: str | None = None,
    name: str | None = None,
    data: str | None = None,
    license: str | None = None,
    task: str | None = None,
    base_model: str | None = None,
    settings: Mapping[str, Any] | None = None,
    history: History | None = None,
    threshold: Threshold | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the card of a model as Markdown with the front matter of the Hugging Face Hub.

    It says what the model is, its scores with 95 % intervals and calibration, when not to trust it,
    how to load it and how it was made: what the model stores, what is measured here and what is
    given. Nothing else is claimed; what is not known is left out. All texts but ``description`` are
    escaped.

    Args:
        model: any ensemble.
        evaluated: data with targets that the model is scored on, in any form that
            :func:`batchensemble.evaluate` takes, which no training used; or the scores that
            ``evaluate`` returned, which have no intervals. By default there are no scores.
        title: by default the method and the number of members.
        description: Markdown that stands first, as it is given.
        name: its name on the Hub, for the lines that load it.
        data: what the data are called that it is scored on, such as ``"breast_cancer, held out"``.
            The Hub lists scores only with such a name.
        license: identifier of the model's license, such as ``"mit"``.
        task: the Hub's name of the task, such as ``"text-classification"``.
        base_model: name on the Hub of the network that was adapted; by default as transformers
            knows it.
        settings: of the training, by name; by default of those of ``history`` the main ones, and
            others that are not the defaults.
        history: what :func:`batchensemble.fit` returned.
        threshold: of :func:`batchensemble.threshold_for`: when it may answer.
        notes: caveats, a sentence each.

    Raises:
        TypeError: ``model`` is not an ensemble.
        TypeError, ValueError: the data do not fit the model.

    Example:
        >>> import torch
        >>> from batchensemble import BatchEnsemble
        >>> print(model_card(BatchEnsemble(torch.nn.Linear(2, 3), 4), title="Three"))
        ---
        ...
        # Three
        ...
    """
    check_ensemble(model)
    details = CardDetails(
        title=title,
        description=description,
        name=name,
        data=data,
        license=license,
        task=task,
        base_model=base_model,
        settings=settings or {},
        history=history,
        decisions=() if threshold is None else (f"{threshold}.",),
        decided=threshold is not None,
        notes=notes,
        adapter=model.base is not None,
    )
    return card_of(model, None if evaluated is None else evaluated_on(model, evaluated), details)


def card_of(model: Ensemble, found: MeasuredScores | None, details: CardDetails) -> str:
    """Return the card of a model, see :func:`model_card`.

    Args:
        model: any ensemble.
        found: its scores, if there are some.
        details: what its author knows.
    """
    title, encoding = details.title or title_of(model), details.encoding or table_encoding(model)
    scores = None if found is None else found.scores
    kind = output_kind(model, scores)
    task = details.task
    if task is None and (encoding is not None or details.estimator) and kind is not None:
        task = f"tabular-{TASK_OF_KIND[kind]}"
    base = details.base_model or base_of(model)
    plain = model.member(0)
    columns = column_rows(model, encoding)
    all_columns = len(model.feature_names or ()) if encoding is None else len(encoding.treatments)
    head = front_matter(
        title=title,
        tags=_tags(model),
        license=details.license,
        task=task,
        base_model=base,
        data=details.data,
        kind=kind,
        scores=scores,
    )
    return _environment().get_template("card.md.j2").render(
        front_matter=Raw(head),
        written=Raw(WRITTEN),
        title=title,
        description=Raw((details.description or "").strip()),
        parts=parts_of_model(model, plain, kind, details.class_names or model.class_names),
        base=base,
        code=_code(plain, base, details),
        read_by=Raw("" if details.estimator else READ_BY.get(kind or "", "")),
        columns=columns,
        more_columns=all_columns - len(columns),
        trained_on=model.trained_on,
        found=found,
        data=details.data,
        scored=details.scored,
        scores=[] if found is None else score_rows(found),
        classes=[] if found is None else class_rows(found.scores),
        limits=limits(
            model,
            found,
            encoding,
            decided=details.decided,
            estimator=details.estimator is not None,
        ),
        decisions=list(map(capitalised, details.decisions)),
        notes=details.notes,
        versions=versions(),
        settings=_settings(details),
        training=_training(details.history),
    )  # fmt: skip


def _code(plain: nn.Module, base: str | None, details: CardDetails) -> Raw:
    lines = loading(
        details.name or FOLDER,
        plain,
        estimator=details.estimator,
        network=details.network,
        adapter=details.adapter,
        base=base,
    )
    return Raw("\n".join(lines))


def _tags(model: Ensemble) -> list[str]:
    tags = ["batchensemble", "ensemble", "uncertainty-quantification"]
    return [*tags, "calibration"] if model.calibrator is not None else tags


def _settings(details: CardDetails) -> list[tuple[str, str]]:
    values = dict(details.settings)
    if details.history is not None and not values:
        plan = details.history.plan
        values = {name: plan[name] for name in MAIN_OPTIONS if name in plan}
        values |= changed_options(plan)
    return [
        (name.replace("_", " "), text_of(value))
        for name, value in values.items()
        if value is not None and value is not False and value not in ((), [], "")
    ]


def _training(history: History | None) -> str:
    """Return how long a training took, in a sentence."""
    if history is None or not history.losses:
        return ""
    epochs = "1 epoch" if history.epochs == 1 else f"{history.epochs:,} epochs"
    best = f", the best of which was epoch {history.best_epoch}" if history.best_epoch else ""
    stopped = f" ({history.stopped})" if history.stopped else ""
    return f"Trained for {epochs}{stopped} in {formatted(sum(history.seconds))} s{best}."


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("batchensemble.report", "templates"),
        autoescape=False,  # it would escape for HTML
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
