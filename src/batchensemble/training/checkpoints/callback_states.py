"""The states of callbacks in checkpoints: under which names, and what is missing or left over."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from batchensemble.training.callbacks.base import Callback, overrides

# What checkpoints have of callbacks without which a training goes on to the same weights, under the
# names of their classes, in which they were written before they had keys.
LEFT_OUT_BEFORE = {"Evaluating", "Watching", "JsonLines"}


def keyed(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Return the callbacks that have a state, by the name that checkpoints give it.

    Several of one key are numbered in their order.

    Raises:
        ValueError: a key is no name.

    Example:
        >>> from batchensemble import JsonLines
        >>> list(keyed([JsonLines("a"), Callback(), JsonLines("b")]))
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


def matched(
    callbacks: Sequence[Callback], stored: Mapping[str, Any], optional: Sequence[str] | None
) -> dict[str, str]:
    """Return under which name a checkpoint has the state of each callback, by its name here.

    Args:
        callbacks: of the training.
        stored: the states, by name; those without anything in them do not count.
        optional: the names of those that may be left out; ``None`` in a checkpoint that was written
            before that was noted.

    Raises:
        ValueError: a state is missing that the training goes by, or may have gone to a callback of
            another name, or it is not to be told whose it is.

    Warns:
        UserWarning: a callback begins afresh, or a state is no longer used.
    """
    here = _by_key(keyed(callbacks))
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
                f"{len(own)}; give as many, or each a key of its own before such a training starts"
            )
        if then:
            found.update({name: before[0] for (name, _), before in zip(own, then, strict=True)})
        else:
            missing += [each for _, each in own if not each.optional_state]
    kept = LEFT_OUT_BEFORE if optional is None else {_without_number(each) for each in optional}
    left = sorted(set(there) - kept)
    _say(missing, left)
    return found


def _say(missing: list[Callback], left: list[str]) -> None:
    kinds = sorted({type(each).__name__ for each in missing})
    if missing and left:
        raise ValueError(
            f"it has the state of {', '.join(map(repr, left))} and none of {', '.join(kinds)}; "
            f"give a callback whose class was renamed the name that it had, key = {left[0]!r}, or "
            "say that it may begin afresh, optional_state = True"
        )
    ours = [each for each in missing if type(each).__module__.startswith("batchensemble.")]
    if ours:
        raise ValueError(
            f"it has no state of {_key(ours[0])!r}, which the training goes by; go on from another "
            "checkpoint, or start afresh in another folder"
        )
    for name in kinds:
        warnings.warn(
            f"{name} begins afresh: the checkpoint has no state of it", UserWarning, stacklevel=10
        )
    for name in left:
        warnings.warn(
            f"the checkpoint has the state of a callback {name!r}, which is not given here; it is "
            "no longer kept",
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
