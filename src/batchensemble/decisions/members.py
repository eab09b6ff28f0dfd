"""``choose_members``: after training, keep the members that predict best together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from batchensemble.core.arguments import whole_number
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble
from batchensemble.ensembles.choice import Choice
from batchensemble.layers.modes import evaluating
from batchensemble.losses import Loss
from batchensemble.metrics.subsets import SubsetScore, countable, subset_score
from batchensemble.predictions.predict import model_loss, open_pairs, predict_batches

Choosable = TypeVar("Choosable", bound=Ensemble)


def choose_members(
    model: Choosable,
    data: Any,
    count: int | None = 4,
    *,
    score: str | None = None,
    loss: str | Loss | None = None,
    target: str | None = None,
    class_names: Sequence[Any] = (),
    memory_limit: int = MEMORY_LIMIT,
) -> Choosable:
    """Return a smaller ensemble of the members that predict best together on held-out data.

    Greedy forward selection without replacement: the first member is the best one alone, and each
    further one is the one with which the prediction of all chosen so far is best (Caruana et al.
    2004, doi 10.1145/1015330.1015432; TabM, arXiv 2410.24210, prunes 32 members this way). Of equal
    candidates the lowest number is taken. The data are passed through the model once.

    Expect a smaller ensemble that is about as good as all members, not a better one:
    ``benchmarks/gain/choose_members.py`` found no significant gain on small tables.

    Use data that the model was not trained on, and score the result on other data again: its scores
    on these data are too good. The data of the last training are recognised, with a warning, as by
    :func:`batchensemble.calibrate`.

    A calibrator that pools before averaging is kept, and the members are chosen by their calibrated
    outputs; but it was fitted to the mean of all, so calibrate the chosen members again.

    Args:
        model: an ensemble trained on other data; it is not changed.
        data: inputs and targets, in any form that :func:`batchensemble.fit` takes.
        count: number of members to choose, 4 by default; ``None``: as many as have the best score,
            the fewest of equal ones, after choosing all one after the other; with a few hundred
            examples these are often too few members.
        score: what to choose by: ``"nll"`` (nats), ``"brier"`` or ``"accuracy"`` for classes and
            labels; ``"nll"``, ``"crps"``, ``"rmse"`` or ``"mae"`` for normal distributions;
            ``"rmse"``, ``"mae"`` or ``"crps"`` for numbers without; ``"crps"``, ``"pinball"``,
            ``"rmse"`` or ``"mae"`` for quantiles. The first is the default. They are those of
            :func:`batchensemble.evaluate`. Accuracy is coarse: many choices have the same.
        loss: the loss that the outputs were trained with; by default the one of ``fit``, else the
            cross-entropy of logits.
        target: name of the column or key of the targets; by default that of the training.
        class_names: the classes in the order of their numbers, if the targets are text; by default
            those of the training.
        memory_limit: size in bytes above which files are streamed. The NLL keeps a number for each
            member and example, ``"brier"``, ``"rmse"`` and the CRPS of other predictions than
            quantiles one for each pair of members, the rest all outputs.

    Returns:
        A model of the same class, ``model.select(chosen)``, with its members in the order in which
        they were chosen and a :class:`~batchensemble.ensembles.choice.Choice` as ``choice``.

    Raises:
        TypeError: ``count`` is no whole number, or the data have the wrong type.
        ValueError: ``count`` is out of range; there is no such score for these predictions; the
            data are empty or do not fit the network; the members cannot be separated; fewer members
            than ``count`` have finite outputs.

    Warns:
        UserWarning: the model was trained on these data; some members have outputs that are not
            finite, and are never chosen.

    Example:
        >>> import torch
        >>> from batchensemble import BatchEnsemble, choose_members, fit
        >>> X = torch.randn(600, 2)
        >>> y = (X[:, 0] + torch.randn(600) > 0).long()
        >>> model = BatchEnsemble(torch.nn.Linear(2, 2), members=8)
        >>> history = fit(model, (X[:300], y[:300]), lr=0.03)
        >>> smaller = choose_members(model, (X[300:], y[300:]), count=4)
        >>> smaller.members, len(smaller.choice.chosen), smaller.choice.score
        (4, 4, 'nll')
    """
    check_ensemble(model)
    if count is not None and whole_number("count", count) > model.members:
        raise ValueError(
            f"count must be at most {model.members}, the number of members, got {count}"
        )
    if model.calibrator is not None and model.calibrator.pooling == "after":
        raise ValueError(
            "the calibrator was fitted to the mean of all members; choose from "
            "model.uncalibrated(), and calibrate the members chosen"
        )
    model.select([0])  # raises, before the data are passed through, if members cannot be separated
    name, found, finish = _scored(model, data, score, loss, target, class_names, memory_limit)
    usable = _usable(found, count)
    steps = len(usable) if count is None else count
    chosen, losses = _greedy(found.of, usable, steps)
    if count is None:
        chosen = chosen[: int(np.argmin(losses)) + 1]
    of_all = found.of(range(model.members)) if len(usable) == model.members else math.nan
    result: Choosable = model.select(chosen)  # type: ignore[assignment]
    scores = tuple(finish(each) for each in losses)
    result.choice = Choice(tuple(chosen), model.members, name, scores, finish(of_all))
    return result


def _scored(
    model: Ensemble,
    data: Any,
    score: str | None,
    loss: str | Loss | None,
    target: str | None,
    class_names: Sequence[Any],
    memory_limit: int,
) -> tuple[str, SubsetScore, Callable[[float], float]]:
    """Return the name of the score, its collector after all data, and what finishes its losses."""
    trained_with = model_loss(model, loss)
    batches = open_pairs(
        model, trained_with, data, target=target, class_names=class_names, memory_limit=memory_limit
    )
    if model.trained_on is not None and batches.fingerprint == model.trained_on:
        warnings.warn(
            "the model was trained on these data, which its members fit better than others, so the "
            "members chosen need not be the best on other data; choose them on examples held out "
            "from its training",
            stacklevel=3,
        )
    ignored = getattr(trained_with, "ignore_index", None)
    collected: tuple[str, SubsetScore, Callable[[float], float]] | None = None
    with evaluating(model), torch.no_grad():
        for prediction, targets in predict_batches(model, trained_with, batches):
            if collected is None:
                collected = subset_score(prediction, score)
            counted = countable(prediction, targets, ignored)
            if counted is not None:
                collected[1].add(*counted)
    if collected is None or not collected[1].entries:
        raise ValueError("there must be at least one example to choose members by, got none")
    return collected


def _usable(found: SubsetScore, count: int | None) -> list[int]:
    """Return the members with finite outputs and losses, and warn of the others."""
    members = range(found.members)
    usable = [m for m in members if found.finite[m] and math.isfinite(found.of([m]))]
    if len(usable) == found.members:
        return usable
    others = ", ".join(str(m) for m in members if m not in usable)
    wrong = f"the outputs of these members are not finite: {others}"
    if len(usable) < (1 if count is None else count):
        raise ValueError(
            f"{wrong}; {len(usable)} of {found.members} are left, and count must be at most as many"
            if usable
            else f"{wrong}, which are all; train again with a lower learning rate"
        )
    warnings.warn(f"{wrong}; they are not chosen", stacklevel=3)
    return usable


def _greedy(
    loss_of: Callable[[Sequence[int]], float], usable: Sequence[int], steps: int
) -> tuple[list[int], list[float]]:
    """Return members in the order of greedy forward selection, and the loss after each step."""
    chosen: list[int] = []
    losses: list[float] = []
    for _ in range(steps):
        rest = [member for member in usable if member not in chosen]
        found = [loss_of([*chosen, member]) for member in rest]
        best = int(np.argmin(found))  # the first, so the lowest number, of equal ones
        chosen.append(rest[best])
        losses.append(found[best])
    return chosen, losses
