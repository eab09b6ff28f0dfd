"""The classes on the page: how frequent each is, and how well each method finds it."""

from __future__ import annotations

import math

from batchensemble.comparison.results import Comparison
from batchensemble.comparison.wording import method_title, printable
from batchensemble.metrics.confusion_matrix import MOST_SHOWN, confusion, named
from batchensemble.metrics.discrimination import class_ranks
from batchensemble.report.sections.tables import Head, Table, TableEntry, TableRow


def class_table(comparison: Comparison) -> Table | None:
    """Return the share of each class and each method's scores on it; ``None`` for many classes."""
    data = comparison.data
    if data.task == "regression" or data.classes > MOST_SHOWN:
        return None
    labels = data.held_out[1]
    runs = [comparison.of(method)[0] for method in comparison.methods]
    found = [confusion(run.classes, labels) for run in runs]
    ranks = [class_ranks(run.classes, labels) for run in runs]
    lines = []
    for number, name in enumerate(named(data.classes, data.class_names)):
        share = float(found[0].shares[number])
        entries = [TableEntry(f"{share:.1%}", share)]
        for each, (auc, precision) in zip(found, ranks, strict=True):
            recall, right = float(each.recall[number]), float(each.precision[number])
            entries.append(_entry(recall, ".1%", f"precision {_text(right, '.1%')}"))
            entries.append(_entry(auc[number], ".4f", f"AP {_text(precision[number], '.4f')}"))
        lines.append(TableRow(printable(name), "", tuple(entries)))
    whats = ("recall", "AUC")
    heads = [Head("Share")]
    heads += [Head(method_title(run.method), what) for run in runs for what in whats]
    caption = (
        "Share of each class in the held-out examples. Recall: share of its examples that are "
        "predicted as such; precision: share of its predictions that are right. AUC (chance 0.5) "
        "and average precision (AP; chance: its share): its probability against all other classes. "
        "First seed."
    )
    return Table("classes", caption, "Class", tuple(heads), tuple(lines))


def _entry(number: float, form: str, detail: str) -> TableEntry:
    return TableEntry(_text(number, form), None if math.isnan(number) else number, detail=detail)


def _text(number: float, form: str) -> str:
    return "-" if math.isnan(number) else format(number, form)
