"""The states of callbacks in checkpoints: their names, and which are missing or unused."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from batchensemble.training.callbacks.base import Callback, overrides

# Callbacks whose state does not change the weights, by the names of their classes, under which
# checkpoints stored them before callbacks had keys.
LEFT_OUT_BEFORE = {"Evaluating", "Watching", "JsonLines"}


def callbacks_by_name(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Return the callbacks that have a state, by the name under which checkpoints store it.

    Callbacks with the same key are numbered in their order.

    Raises:
        ValueError: a key is not a valid name.

    Example:
        >>> from batchensemble import JsonLines
        >>> list(callbacks_by_name([JsonLines("a"), Callback(), JsonLines("b")]))
        ['json lines 1', 'json lines 2']
    """
    found: dict[str, Callback] = {}
    counts: dict[str, int] = defaultdict(int)
    for each in callbacks:
        if overrides(each, "state_dict"):
            key = _key(each)
            counts[key] += 1
            found[f"{key} {counts[key]}"] = each
    return found


def match_stored(
    callbacks: Sequence[Callback], stored: Mapping[str, Any], optional: Sequence[str] | None
) -> dict[str, str]:
    """Return the stored name of each callback's state, by the callback's name in this training.

    Args:
        callbacks: those of this training.
        stored: the states in the checkpoint, by name; empty ones are ignored.
        optional: the names of states that may be left out; ``None`` for a checkpoint of a version
            that did not store them.

    Raises:
        ValueError: a state that the training depends on is missing, or it is not clear which
            callback a state belongs to.

    Warns:
        UserWarning: a callback starts without a state, or a state is dropped.
    """
    here = _by_key(callbacks_by_name(callbacks))
    there = _by_key({name: name for name, state in stored.items() if state != {"dict": []}})
    found: dict[str, str] = {}
    missing: list[Callback] = []
    for key, own in here.items():
        first = own[0][1]
        names = (key, *first.earlier_keys, type(first).__name__)
        then = next((there.pop(name) for name in names if name in there), [])
        if then and len(then) != len(own):
            raise ValueError(
                f"it has the states of {len(then)} callbacks {key!r}, and here there are "
                f"{len(own)}; give as many, or each its own key before such a training starts"
            )
        if then:
            found.update({name: before[0] for (name, _), before in zip(own, then, strict=True)})
        else:
            missing += [each for _, each in own if not each.optional_state]
    kept = LEFT_OUT_BEFORE if optional is None else {_without_number(each) for each in optional}
    left = sorted(set(there) - kept)
    _report_unmatched(missing, left)
    return found


def _report_unmatched(missing: list[Callback], left: list[str]) -> None:
    kinds = sorted({type(each).__name__ for each in missing})
    if missing and left:
        raise ValueError(
            f"it has the state of {', '.join(map(repr, left))} and none of {', '.join(kinds)}; if "
            f"the class of a callback was renamed, give it the old name, key = {left[0]!r}, or let "
            "it start without a state, optional_state = True"
        )
    ours = [each for each in missing if type(each).__module__.startswith("batchensemble.")]
    if ours:
        raise ValueError(
            f"it has no state of {_key(ours[0])!r}, which the training depends on; resume from "
            "another checkpoint, or start from scratch in another folder"
        )
    for name in kinds:
        warnings.warn(
            f"{name} starts without a state: the checkpoint has none", UserWarning, stacklevel=10
        )
    for name in left:
        warnings.warn(
            f"the checkpoint has the state of a callback {name!r}, which this training does not "
            "have; the state is dropped",
            UserWarning,
            stacklevel=10,
        )


def _key(callback: Callback) -> str:
    key = callback.key or type(callback).__name__
    if not re.fullmatch(r"\w[\w .-]*", key) or " of " in key:
        raise ValueError(
            f"the key of a callback must be letters, digits, blanks, '.', '_' and '-', without "
            f"' of ', got {key!r}; it is part of the name of a file"
        )
    return key


def _by_key(named: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for name in sorted(named, key=_number):
        found[_without_number(name)].append((name, named[name]))
    return dict(found)


def _without_number(name: str) -> str:
    return name.rpartition(" ")[0]


def _number(name: str) -> int:
    return int(name.rpartition(" ")[2])
