"""Further members for an ensemble: copies, fresh starts, and the members of other ensembles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from batchensemble.core.arguments import one_of
from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.conversion.convert import Reset, draw_copies, reset_parameters, twins
from batchensemble.ensembles.member_weights import shared_tensors
from batchensemble.ensembles.runner import RunModeDetection
from batchensemble.layers import Independent, RankOne, StackedLinear, Twin, Vmapped
from batchensemble.layers.rank_one.fast_weights import FastWeights
from batchensemble.layers.rank_one.initialisation import ADDITIVE, MULTIPLICATIVE, Deferred
from batchensemble.layers.rank_one.options import Initialisation

MAY_DIFFER = {"init", "std", "run", "space"}  # options of ensembles that are joined
Joinable = TypeVar("Joinable", bound=Ensemble)


def append_copy(model: Ensemble, like: int) -> int:
    """Append a copy of member ``like`` to an ensemble, in place, and return its index.

    Raises:
        ValueError: the model is calibrated.
    """
    _check_uncalibrated(model)
    for _, twin in twins(model.network):
        twin.keep([*range(model.members), like])  # type: ignore[operator]
    _tell_members(model, model.members + 1)
    return model.members - 1


def start_fast_weights(network: nn.Module, init: Initialisation | None) -> None:
    """Give the last member of a BatchEnsemble's network a fresh start, in place.

    Its fast weights are initialised; its biases, norms and statistics are the means of those of the
    other members; its independent modules are drawn anew.

    Args:
        network: the converted network.
        init: of the fast weights; ``None``: ones, or zeros in additive mode.
    """
    draws: dict[Callable[[FastWeights], None], Deferred] = {}
    with torch.no_grad():
        for name, twin in twins(network):
            if isinstance(twin, (Independent, StackedLinear)):
                plain = twin.member(0)
                reset_parameters(plain)
                twin.put(twin.members - 1, plain)
                continue
            for each in twin.modules():
                if isinstance(each, Twin):
                    _mean_of_others(each)
                if not isinstance(each, RankOne) or each.for_all:
                    continue
                function = _function(each, init)
                deferred = draws.setdefault(function, Deferred(function))
                deferred.layer = name
                for weight in each.layouts:
                    fast = each.fast_weights(weight)
                    deferred(replace(fast, r=fast.r.detach()[-1:], s=fast.s.detach()[-1:]))
    for deferred in draws.values():
        deferred.start()


def start_anew(model: Ensemble, reset: Reset | None) -> None:
    """Re-initialise the last member of an ensemble whose members share nothing, in place."""
    drawn = draw_copies(model.member(0), 1, reset)[0]
    with torch.no_grad():
        for name, twin in twins(model.network):
            twin.put(model.members - 1, drawn.get_submodule(name))  # type: ignore[operator]


def joined_members(models: Sequence[Joinable]) -> Joinable:
    """Return one ensemble of the members of several, which share their weights, in their order.

    Raises:
        TypeError: they are of different classes.
        ValueError: they differ in what all members share, or in what their outputs mean.
    """
    first, *others = models
    for other in others:
        _check_joinable(first, other)
    result = copy.deepcopy(first)
    for other in others:
        pairs = zip(twins(result.network), twins(other.network), strict=True)
        for (_, mine), (_, theirs) in pairs:
            if isinstance(mine, Independent) and isinstance(theirs, Independent):
                mine.copies.extend(copy.deepcopy(theirs.copies))
                mine.members += theirs.members
                continue
            for one, another in zip(mine.modules(), theirs.modules(), strict=True):
                if isinstance(one, Twin) and isinstance(another, Twin):
                    _append(one, another)
        _tell_members(result, result.members + other.members)
    return result


def _check_uncalibrated(model: Ensemble) -> None:
    if model.calibrator is not None:
        raise ValueError(
            "the model is calibrated for the members that it has; take model.uncalibrated(), and "
            "calibrate it again"
        )


def _check_joinable(one: Ensemble, other: Ensemble) -> None:
    if type(one) is not type(other):
        raise TypeError(
            f"ensembles of one kind can be joined, got a {type(one).__name__} and a "
            f"{type(other).__name__}"
        )
    for each in (one, other):
        _check_uncalibrated(each)
    for name in ("loss", "class_names", "feature_names", "encoding"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            raise ValueError(
                f"the ensembles must have the same {name}, got {_brief(mine)} and {_brief(theirs)}"
            )
    for name in (one.options.keys() & other.options.keys()) - MAY_DIFFER:
        if one.options[name] != other.options[name]:
            raise ValueError(
                f"the ensembles must have the same {name}, got {one.options[name]!r} and "
                f"{other.options[name]!r}"
            )
    modules = [_modules(each.select([0])) for each in (one, other)]
    if modules[0] != modules[1]:
        different = next((a for a, b in zip(*modules, strict=False) if a != b), modules[0][-1])
        raise ValueError(
            f"the ensembles are of different networks: {different[0] or 'the network'!r} is a "
            f"{different[1].__name__} ({different[2]}) in one, and not in the other"
        )
    mine, theirs = (shared_tensors(each.network) for each in (one, other))
    for name, value in mine.items():
        if not (value.device == theirs[name].device and torch.equal(value, theirs[name])):
            raise ValueError(
                f"{name!r} is shared by the members, and differs between the two ensembles; only "
                "ensembles that share their weights can be joined: freeze them in training with "
                "train_only('fast', 'bias', 'norm', 'heads')"
            )


def _modules(model: Ensemble) -> list[tuple[str, type[nn.Module], str, list[str]]]:
    """Return name, class, settings and what members own of each module."""
    return [
        (name, type(each), each.extra_repr(), list(each.own) if isinstance(each, Twin) else [])
        for name, each in model.network.named_modules()
    ]


def _append(mine: Twin, theirs: Twin) -> None:
    """Append what the members of another twin own."""
    if isinstance(mine, Vmapped):
        before = mine.members
        mine.keep([*range(before), *[0] * theirs.members])
        for index in range(theirs.members):
            mine.put(before + index, theirs.member(index))
        return
    values = iter([getattr(theirs, name).detach() for name in theirs.own])
    mine.pick(lambda value: torch.cat([value, next(values)]), mine.members + theirs.members)


def _mean_of_others(twin: Twin) -> None:
    """Make what the last member owns, but for fast weights, the mean of the others."""
    fast = {name for name, role in twin.roles().items() if role == "fast"}
    for name in twin.own:
        value = getattr(twin, name).detach()
        if name not in fast and value.is_floating_point():
            value[-1] = value[:-1].mean(0)


def _function(twin: RankOne, init: Initialisation | None) -> Callable[[FastWeights], None]:
    if callable(init):
        return init
    functions = MULTIPLICATIVE if twin.options.mode == "multiplicative" else ADDITIVE
    same = "ones" if twin.options.mode == "multiplicative" else "zeros"
    return functions[same if init is None else one_of("init", init, functions)]


def _tell_members(model: Ensemble, members: int) -> None:
    alone = model.members == 1
    model._set_members(members)
    model.choice = None
    if alone:  # whether members may go together was no question
        known = model.is_plain or model.run is not None
        model.detection = RunModeDetection(dict.fromkeys((False, True), known))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
