"""``write_report``: a comparison as results.json, figures, and one page that needs no network."""

from __future__ import annotations

import base64
import json
import math
import shlex
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from batchensemble.compare import Comparison, Run, Settings, versions
from batchensemble.plots import METHOD_STYLES, draw_all, save_all
from batchensemble.plots.saving import replace_file
from batchensemble.summary import (
    COST,
    METHOD_NAMES,
    Column,
    Row,
    headline,
    losses_of,
    quality,
    shown,
    summarise,
    value,
)

# Members that are this much worse alone than together were not trained to answer alone.
MEMBERS_FAR_BELOW = 0.05
SYMBOLS = {"single": "●", "deep": "■", "batch": "▲", "mimo": "◆"}
SETTINGS = {
    "members": "Members of an ensemble",
    "epochs": "Epochs",
    "batch_size": "Batch size",
    "lr": "Learning rate (Adam)",
    "cooldown": "Share of the steps in which the rate falls to 0",
    "hidden": "Widths of the hidden layers",
    "seeds": "Seeds",
}

# Title, and how to read it.
FIGURES = {
    "reliability": (
        "Calibration",
        "A bar is the share of right predictions among those made with that confidence; whiskers "
        "are 95% intervals. On the dashed line a confidence of 80% is right in 80% of the "
        "cases; above it the network is too modest, below it too sure. The counts below are on a "
        "log scale.",
    ),
    "plane": (
        "Predictions and doubt over the plane",
        "Above, what each method predicts, with held-out examples on it and a line where the "
        "predicted class changes. Below, in nats and on one log scale, how much the members "
        "differ: a useful ensemble is dark where there were no examples to learn from.",
    ),
    "members": (
        "Where each member draws the line",
        "Thin lines are the members' own decisions, the wide pale one is that of their mean "
        "probabilities. Lines on top of each other mean that the members learned the same.",
    ),
    "epistemic_histogram": (
        "How much the members differ",
        "The mutual information of class and member for each held-out example. Further right, "
        "the members differ more; to the far left they are one network several times over.",
    ),
    "loss_curves": (
        "Training",
        "The loss is averaged over the epoch and over the members, the held-out NLL is that of "
        "the ensemble after the epoch. A training loss that falls while the held-out NLL rises is "
        "overfitting.",
    ),
    "curve": (
        "The curve and its doubt",
        "The line is the mean, the pale band holds 90% of what is predicted, the darker one in it "
        "is what the members differ in. Dashed lines are the ends of the training examples, which "
        "are the points. Below, the standard deviations: of all (pale) and of what the members "
        "differ in, which should grow beyond the examples and in gaps.",
    ),
    "coverage": (
        "Do intervals cover?",
        "On the dashed line an interval that should hold 90% of the targets holds 90%. Below it "
        "the method is too sure, above it too modest.",
    ),
    "error_by_deviation": (
        "Does doubt tell errors?",
        "The held-out examples in ten groups, from those the method is surest of to those it "
        "doubts most. On the dashed line the errors are as large as predicted; markers at one "
        "height say that the doubt tells nothing.",
    ),
    "error_time": (
        "Error for the time",
        "Down and to the left is better. With one seed a bar is the standard error of the RMSE on "
        "so many examples; with several, bars are sample deviations and faint points the seeds.",
    ),
    "accuracy_time": (
        "Accuracy for the time",
        "Up and to the left is better. With one seed a bar is the standard error of the accuracy "
        "on so many examples; with several, bars are sample deviations and faint points the seeds.",
    ),
}


def write_report(comparison: Comparison, folder: str | Path) -> Path:
    """Write ``results.json``, ``figures/`` and ``report.html``, and return the page's path.

    Args:
        comparison: from :func:`batchensemble.compare.compare`.
        folder: is made if it is missing; files of these names in it are replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = json.dumps(finite(comparison.as_dict()), indent=2, allow_nan=False)
    replace_file(folder / "results.json", f"{results}\n".encode())
    figures = draw_all(comparison)
    save_all(figures, folder / "figures")
    images = {name: (folder / "figures" / f"{name}.svg").read_bytes() for name in figures}
    # A file name that is no valid text may be part of the page.
    page = render(comparison, figures, images).encode(errors="replace")
    replace_file(folder / "report.html", page)
    return folder / "report.html"


def render(comparison: Comparison, figures: dict[str, Figure], images: dict[str, bytes]) -> str:
    """Return the page as HTML; everything that comes from the data is escaped.

    Args:
        comparison: what it tells of.
        figures: from :func:`batchensemble.plots.draw_all`.
        images: the same as SVG, which the page holds.
    """
    environment = Environment(
        loader=PackageLoader("batchensemble"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = summarise(comparison)
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        data=comparison.data,
        seeds=len({run.seed for run in comparison.runs}),
        rows=rows,
        quality=quality(comparison),
        cost=COST,
        names=METHOD_NAMES,
        symbols=SYMBOLS,
        styles=METHOD_STYLES,
        verdict=verdict(comparison, rows),
        checks=[
            (row, member_check(comparison, row)) for row in rows if _members(comparison, row) > 1
        ],
        accuracy_error=_accuracy_error(comparison, rows),
        most_members=max((_members(comparison, row) for row in rows), default=0),
        runs=[_run_cells(comparison, run) for row in rows for run in comparison.of(row.method)],
        figures=[_figure(comparison, name, figures[name], images[name]) for name in figures],
        printed=_printed(comparison),
        settings=_settings(comparison.settings),
        versions=versions(),
        command=command(comparison),
        from_file=comparison.data.target is not None,
    )


def verdict(comparison: Comparison, rows: list[Row]) -> str:
    """Say in one sentence which method has the lowest NLL, by how much, and at what cost.

    The distance is to the single network, or to the next best method if there is none or it is
    the best itself.
    """
    if not rows:
        return "No training came to its end, so there is nothing to compare."
    by = headline(comparison)
    ranked = sorted(rows, key=lambda row: row.cells[by.key].mean)
    best = ranked[0]
    lowest = f"{best.cells[by.key].mean:.4f}{' ' * bool(by.unit)}{by.unit}"
    examples = f"{len(comparison.data.held_out[0]):,} held-out examples"
    if len(rows) == 1:
        first = quality(comparison)[0]
        reached = shown(best.cells[first.key].mean, first)
        what = f"n {first.title if first.key == 'rmse' else first.title.lower()}"
        return f"{best.name} reaches {by.title} {lowest} and a{what} of {reached} on {examples}."
    single = next((row for row in rows if row.method == "single"), None)
    if best is single:
        other = ranked[1]
        return (
            f"No ensemble has a lower {by.title} than the single network, {lowest} on {examples}: "
            f"{other.name} comes nearest, {_distance(comparison, other, best, 'above')}; it takes "
            f"{_price(other, best)}."
        )
    reference = single or ranked[1]
    return (
        f"{best.name} has the lowest {by.title}, {lowest} on {examples}: "
        f"{_distance(comparison, best, reference, 'below')}; it takes {_price(best, reference)}."
    )


def _distance(comparison: Comparison, row: Row, reference: Row, side: str) -> str:
    """Say how far two methods' NLLs are apart, and whether these examples can tell.

    The error is that of the mean of paired differences, since both saw the same examples.
    """
    differences = losses_of(comparison, row.method) - losses_of(comparison, reference.method)
    gap = abs(float(differences.mean()))
    name = "the single network" if reference.method == "single" else reference.name
    text = f"{gap:.4f}" if gap >= 0.00005 else "less than 0.0001"
    text = f"{text} {side} {name}"
    if gap < 2 * float(differences.std()) / math.sqrt(len(differences)):
        text += ", too little to tell apart on these examples"
    return text


def _price(row: Row, reference: Row) -> str:
    def ratio(key: str) -> str:
        base = reference.cells[key].mean
        return f"{row.cells[key].mean / base:.2f}" if base else "-"

    return (
        f"{ratio('parameters')} times the parameters and {ratio('training_seconds')} times the "
        "training time"
    )


def member_check(comparison: Comparison, row: Row) -> str:
    """Say whether an ensemble's members are good alone, and whether they differ."""
    runs = comparison.of(row.method)
    if comparison.data.task == "regression":
        each = [error for run in runs for error in run.scores["member_rmses"]]
        return (
            f"its members have an RMSE of {min(each):.4g} to {max(each):.4g} one by one and of "
            f"{row.cells['rmse'].mean:.4g} together; their means differ by a deviation of "
            f"{row.cells['epistemic'].mean:.2g}."
        )
    alone = [accuracy for run in runs for accuracy in run.scores["member_accuracies"]]
    together, information = row.cells["accuracy"].mean, row.cells["mutual_information"].mean
    text = (
        f"its members are right in {min(alone):.2%} to {max(alone):.2%} of the examples one by "
        f"one and in {together:.2%} together; mutual information {information:.5f} nats."
    )
    if min(alone) < together - MEMBERS_FAR_BELOW:
        text += " Members this much worse alone differ because they are wrong, not unsure."
    return text


def command(comparison: Comparison) -> str:
    """Return the command line that makes this comparison again, for a POSIX shell."""
    parts = ["batchensemble", "compare"]
    settings, data = comparison.settings, comparison.data
    if comparison.recipe is not None:
        return shlex.join([*parts, "--recipe", comparison.recipe])
    parts += ["--data", data.name]
    if data.target is not None:
        parts += ["--target", data.target]
    if data.task == "regression" and data.target is not None:
        parts += ["--task", "regression"]
    if settings.loss is not None:
        parts += ["--loss", settings.loss]
    parts += ["--methods", ",".join(settings.methods), "--members", str(settings.members)]
    parts += ["--epochs", str(settings.epochs), "--batch-size", str(settings.batch_size)]
    parts += ["--lr", str(settings.lr)]
    if settings.cooldown != Settings.cooldown:
        parts += ["--cooldown", str(settings.cooldown)]
    parts += ["--hidden", ",".join(map(str, settings.hidden)), "--seeds", str(settings.seeds)]
    return shlex.join(parts)


def finite(content: Any) -> Any:
    """Return JSON data with ``None`` for what JSON has no number for: NaN and infinities.

    Example:
        >>> finite({"losses": [0.5, float("nan")]})
        {'losses': [0.5, None]}
    """
    if isinstance(content, dict):
        return {key: finite(each) for key, each in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(each) for each in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def _members(comparison: Comparison, row: Row) -> int:
    return comparison.of(row.method)[0].prediction.members


def _accuracy_error(comparison: Comparison, rows: list[Row]) -> float:
    """Return the standard error of the best accuracy, a share of the held-out examples."""
    best = max((row.cells["accuracy"].mean for row in rows if "accuracy" in row.cells), default=0.0)
    return math.sqrt(best * (1 - best) / len(comparison.data.held_out[1]))


def _run_cells(comparison: Comparison, run: Run) -> dict[str, Any]:
    seconds = next(column for column in COST if column.key == "training_seconds")
    columns = quality(comparison)
    alone = "member_rmses" if columns[0].key == "rmse" else "member_accuracies"
    return {
        "method": run.method,
        "seed": run.seed,
        "scores": [shown(value(run, column), column) for column in (*columns, seconds)],
        "members": [shown(each, columns[0]) for each in run.scores[alone]],
        "together": shown(run.scores[columns[0].key], columns[0]),
        "notebook_ece": run.scores.get("notebook_ece"),
    }


def _printed(comparison: Comparison) -> list[list[tuple[str, str, str]]]:
    """Return for each epoch and training: the notebook's loss, this run's, their difference."""
    trainings = [list(zip_longest(*both)) for both in comparison.printed.values()]
    epochs = max((len(training) for training in trainings), default=0)
    return [
        [_pair(*training[epoch]) if epoch < len(training) else ("-",) * 3 for training in trainings]
        for epoch in range(epochs)
    ]


def _pair(given: float | None, ours: float | None) -> tuple[str, str, str]:
    texts = ["-" if loss is None else f"{loss:.4f}" for loss in (given, ours)]
    if given is None or ours is None:
        return texts[0], texts[1], "-"
    # The notebook prints four decimals; further ones would be differences of rounding.
    difference = round(ours, 4) - round(given, 4)
    return texts[0], texts[1], f"{difference:+.4f}" if abs(difference) > 5e-5 else "0"


def _settings(settings: Settings) -> list[tuple[str, str]]:
    def text(setting: Any) -> str:
        if isinstance(setting, tuple):
            return ", ".join(map(str, setting)) or "none"
        return str(setting)

    return [(title, text(getattr(settings, name))) for name, title in SETTINGS.items()]


def _figure(comparison: Comparison, name: str, figure: Figure, image: bytes) -> dict[str, Any]:
    title, reading = FIGURES[name]
    width, height = figure.get_size_inches()
    return {
        "name": name,
        "title": title,
        "reading": reading,
        "alt": _alt(name, comparison),
        "source": f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}",
        "width": round(96 * width),
        "height": round(96 * height),
    }


def _alt(name: str, comparison: Comparison) -> str:
    """Describe a figure with the numbers that a reader would take from it."""

    columns: tuple[Column, ...] = (*quality(comparison), *COST)
    alone = "member_accuracies" if comparison.data.task == "classification" else "member_rmses"

    def each(text: str) -> str:
        runs = [comparison.of(method)[0] for method in comparison.methods]
        said = [
            text.format(
                **{column.key: shown(value(run, column), column) for column in columns},
                loss=run.history.losses[-1] if run.history.losses else math.nan,
                first=min(run.scores[alone]),
                last=max(run.scores[alone]),
            )
            for run in runs
        ]
        names = [METHOD_NAMES[run.method] for run in runs]
        return "; ".join(f"{name} {text}" for name, text in zip(names, said, strict=True)) + "."

    if comparison.data.task == "regression":
        return {
            "curve": "The predicted mean over the only feature with its intervals, a panel for "
            "each method. RMSE: " + each("{rmse}"),
            "coverage": "The share of held-out targets in intervals, against the share meant. In "
            "those of 90%: " + each("{coverage}"),
            "error_by_deviation": "The error of ten groups of examples against the deviation "
            "predicted. RMSE: " + each("{rmse}"),
            "loss_curves": "Loss by epoch, two panels. Training loss after the last: "
            + each("{loss:.4f}"),
            "error_time": "RMSE against training time, first seed: "
            + each("{rmse} after {training_seconds} seconds"),
        }[name]
    return {
        "reliability": "Accuracy against confidence in bins, a panel for each method. Expected "
        "calibration error: " + each("{ece}"),
        "plane": "Maps over two axes of the features, two for each method: the predicted "
        "probabilities with the held-out examples, and the mutual information of class and "
        "member. Mean mutual information on the held-out examples, in nats: "
        + each("{mutual_information}"),
        "members": "The decision lines of the members, a panel for each method. Pairs of members "
        "that name different classes, as a share: " + each("{disagreement}"),
        "epistemic_histogram": "Histograms of the mutual information on the held-out examples. "
        "Means in nats: " + each("{mutual_information}"),
        "loss_curves": "Loss by epoch, two panels. After the last epoch: "
        + each("training loss {loss:.4f}, held-out NLL {nll} nats"),
        "accuracy_time": "Accuracy against training time, first seed: "
        + each("{accuracy} after {training_seconds} seconds"),
    }[name]
