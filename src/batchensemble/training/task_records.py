"""What is remembered of a task: how certain members are of it, and which tasks look like it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import entr

from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.tasks import TaskRecord
from batchensemble.layers.modes import evaluating
from batchensemble.losses import CrossEntropy
from batchensemble.predictions import Prediction
from batchensemble.predictions.predict import open_pairs, predict_batches
from batchensemble.training.plan import TrainingPlan

Moments = tuple[float, float]

# Two entropies are apart where their means differ by more than this share of their deviation: of
# two groups of 16 examples, the one with the higher mean is then the right one in three of four.
LEAST_DIFFERENCE = 0.25


def task_record(
    model: Ensemble,
    tasks: Sequence[TaskRecord],
    data: Any,
    plan: TrainingPlan,
    earlier: Mapping[int, Any],
) -> TaskRecord:
    """Return the record of the task that the next member has just learnt.

    On the examples of each of two tasks their own member must be more certain than the other. Of
    tasks whose examples are gone, only their member's certainty is known: then it must be less
    certain of the new examples than it was of its own.

    Args:
        model: the ensemble.
        tasks: the tasks learnt before, one by each member before this one.
        data: examples of the new task with their targets, held out if there are some.
        plan: the options of the training.
        earlier: such examples of earlier tasks, as far as they are at hand.
    """
    if not isinstance(model.loss, CrossEntropy):
        return TaskRecord()
    member = len(tasks)
    of_all = moments(model.select(range(member + 1)), data, plan)
    alone, confused = model.select([member]), []
    for number, task in enumerate(tasks):
        if task.entropy is None or task.deviation is None:
            continue
        own = task.entropy, task.deviation
        other = of_all[number]
        if number in earlier:
            (other,) = moments(alone, earlier[number], plan)
        if not (are_apart(of_all[member], of_all[number]) and are_apart(own, other)):
            confused.append(number)
    return TaskRecord(*of_all[member], confused_with=tuple(confused))


def are_apart(own: Moments, other: Moments) -> bool:
    """Return whether an entropy is clearly above the one of the member whose task it is.

    Args:
        own: mean and standard deviation over examples, nats.
        other: those of the entropy that should be the higher one.

    Example:
        >>> are_apart((0.1, 0.1), (0.5, 0.3)), are_apart((0.1, 0.1), (0.11, 0.1))
        (True, False)
    """
    pooled = math.sqrt((own[1] ** 2 + other[1] ** 2) / 2)
    return other[0] - own[0] > LEAST_DIFFERENCE * pooled


@torch.no_grad()
def moments(model: Ensemble, data: Any, plan: TrainingPlan) -> list[Moments]:
    """Return the mean and standard deviation of each member's entropy over examples, nats.

    Args:
        model: the ensemble, trained with the cross-entropy.
        data: examples with targets, in any form that :func:`batchensemble.fit` takes.
        plan: the options of the training.
    """
    loss = CrossEntropy() if model.loss is None else model.loss
    batches = open_pairs(
        model,
        loss,
        data,
        target=plan.target,
        class_names=plan.class_names,
        memory_limit=plan.memory_limit,
    )
    found = []
    with evaluating(model):
        for prediction, _ in predict_batches(model, loss, batches):
            assert isinstance(prediction, Prediction)
            entropy = entr(prediction.member_probs).sum(2)
            found.append(entropy.reshape(*entropy.shape[:2], -1).mean(2))
    entropy = np.concatenate(found)
    return list(zip(entropy.mean(0).tolist(), entropy.std(0).tolist(), strict=True))
