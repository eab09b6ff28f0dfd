"""Notes on a ranking: what is left out, and which settings differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchensemble.comparison.ranking.scored import Scored, result_labels
from batchensemble.comparison.wording import printable

# Settings that may differ between folders without changing the methods.
NOT_OF_METHODS = ("methods", "seeds")


def notes_of(
    found: Sequence[Scored], methods: Sequence[str], seeds: Sequence[Sequence[int]]
) -> list[str]:
    """Return what is left out and what differs, a sentence each.

    Args:
        found: the scores of the comparisons.
        methods: names of the methods that are ranked.
        seeds: the seeds used, of each comparison.
    """
    labels, notes = result_labels(found), []
    everyone = dict.fromkeys(method for each in found for method in each.scores)
    for method in everyone:
        without = [
            label for label, each in zip(labels, found, strict=True) if method not in each.scores
        ]
        if without:
            notes.append(f"{printable(method)} is left out: {', '.join(without)} has no run of it.")
    if len({each.data.get("task") for each in found}) > 1:
        notes.append(
            "The data sets mix classification and regression. Ranks are within a data set, so they "
            "can be averaged; the result is about both kinds together."
        )
    notes += _differences(found, labels)
    counts = {label: str(len(own)) for label, own in zip(labels, seeds, strict=True)}
    if len(set(counts.values())) > 1:
        notes.append(f"The seeds differ: {_values(counts)}.")
    for label, each, own in zip(labels, found, seeds, strict=True):
        done = set().union(*(each.scores[method] for method in methods))
        if left := max(len(done), _count(each.settings.get("seeds"))) - len(own):
            notes.append(
                f"{label}: {left} seed{'s' * (left > 1)} left out, since not every method finished "
                f"{'it' if left == 1 else 'them'}."
            )
    return notes


def _differences(found: Sequence[Scored], labels: Sequence[str]) -> list[str]:
    """Return which settings differ between the folders."""
    keys = dict.fromkeys(key for each in found for key in each.settings)
    lines = []
    for key in keys:
        values = [_setting(each.settings.get(key)) for each in found]
        if key not in NOT_OF_METHODS and len(set(values)) > 1:
            each_value = _values(dict(zip(labels, values, strict=True)))
            lines.append(f"{printable(key).replace('_', ' ')} ({each_value})")
    if not lines:
        return []
    return [f"Settings differ: {'; '.join(lines)}. The methods are not the same on all data sets."]


def _values(by_label: Mapping[str, str]) -> str:
    """Return which data sets have which value, the value first."""
    groups: dict[str, list[str]] = {}
    for label, value in by_label.items():
        groups.setdefault(value, []).append(label)
    return ", ".join(f"{value} on {' and '.join(own)}" for value, own in groups.items())


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return " × ".join(map(str, value)) or "none"  # noqa: RUF001
    return "the default" if value is None else printable(str(value))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
