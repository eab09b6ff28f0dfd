"""Which task unlabelled examples are of, by the members' uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from batchensemble.core.arguments import whole_number
from batchensemble.core.inputs import Inputs, Nested
from batchensemble.core.outputs import logits_of
from batchensemble.core.pytree import map_leaves
from batchensemble.ensembles.tasks import TaskRecord
from batchensemble.layers.modes import evaluating

if TYPE_CHECKING:
    from batchensemble.ensembles.forward import ForwardPass

BATCH = 1024  # examples of a forward pass


@dataclass(frozen=True)
class InferredTasks:
    """The task of each group of examples, and how sure that is.

    Attributes:
        tasks: the task whose member is the most certain of the group.
        confidence: the probability, by a paired normal test over the group's examples, that this
            member's mean entropy is below the runner-up's, 0.5 to 1; NaN for one example.
        entropy: mean entropy of each member over each group, nats.
    """

    tasks: Int[np.ndarray, " groups"]
    confidence: Float[np.ndarray, " groups"]
    entropy: Float[np.ndarray, "groups tasks"]

    def __len__(self) -> int:
        return len(self.tasks)

    def __str__(self) -> str:
        counts = np.bincount(self.tasks)
        parts = [f"task {task} in {count}" for task, count in enumerate(counts) if count]
        return f"{len(self)} groups: {', '.join(parts)}"


def infer_task(
    model: ForwardPass, tasks: Sequence[TaskRecord], x: Any, together: int
) -> InferredTasks:
    """Return the task of each group of examples, see :meth:`Ensemble.infer_task`.

    Args:
        model: the ensemble.
        tasks: the tasks that its members have learnt.
        x: the examples.
        together: number of examples of a group.
    """
    together = whole_number("together", together, at_least=2)
    check_distinct(tasks)
    inputs, found = as_examples(model, x), []
    with evaluating(model), torch.no_grad():
        for start in range(0, len(inputs), BATCH):
            outputs = logits_of(model(inputs[start : start + BATCH]))
            found.append(entropies(outputs[:, : len(tasks)]))
    entropy = torch.cat(found)
    if not entropy.isfinite().all():
        raise ValueError("x must be finite, and so must be the members' outputs for it")
    means, sure = zip(*map(_chosen, entropy.split(together)), strict=True)
    of_groups = torch.stack(means)
    return InferredTasks(of_groups.argmin(1).cpu().numpy(), np.array(sure), of_groups.cpu().numpy())


def entropies(logits: Tensor) -> Tensor:
    """Return the entropy of each member on each example, ``[examples, members]``, nats.

    Args:
        logits: ``[examples, members, classes, ...]``; over tokens or pixels it is the mean.
    """
    entropy = torch.special.entr(logits.double().softmax(2)).sum(2)
    return entropy.flatten(2).mean(2) if entropy.dim() > 2 else entropy


def check_distinct(tasks: Sequence[TaskRecord]) -> None:
    """Raise ``ValueError`` where uncertainty cannot tell the tasks apart.

    Args:
        tasks: the tasks that the members have learnt.
    """
    if len(tasks) < 2:
        raise ValueError(
            "infer_task chooses among tasks that batchensemble.learn taught to members, at least "
            f"2, got {len(tasks)}"
        )
    if any(each.entropy is None for each in tasks):
        raise ValueError(
            "infer_task compares the entropies of classes, and this ensemble was not trained with "
            "the cross-entropy"
        )
    pairs = [(one, task) for task, each in enumerate(tasks) for one in each.confused_with]
    if pairs:
        one, other = pairs[0]
        raise ValueError(
            f"the members' uncertainty does not tell task {one} from task {other}, as where tasks "
            "share their inputs; know the task of your examples, and ask model.member(task)"
            + (f" (so it is for {len(pairs)} pairs of tasks)" if len(pairs) > 1 else "")
        )


def as_examples(model: ForwardPass, x: Any) -> Inputs:
    """Return examples as the network takes them: on its device, floats in its type.

    Raises:
        TypeError: they are no arrays.
        ValueError: there are none.
    """
    first = next(model.parameters())

    def moved(_: Any, leaf: Any) -> Any:
        if hasattr(leaf, "columns"):
            raise TypeError("x must be an array or tensor, got a table; give its encoded numbers")
        tensor = leaf if isinstance(leaf, Tensor) else torch.as_tensor(np.asarray(leaf))
        dtype = first.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(first.device, dtype)

    if isinstance(x, (Mapping, tuple)):
        inputs: Inputs = Nested(map_leaves(moved, x))
    else:
        inputs = moved((), x)
        if not inputs.dim():  # type: ignore[union-attr]
            raise ValueError("x must have the shape [examples, ...], got a single number")
    if not len(inputs):
        raise ValueError("x must hold at least one example, got none")
    return inputs


def _chosen(entropy: Tensor) -> tuple[Tensor, float]:
    """Return the mean entropy of each member over a group, and how sure the lowest is."""
    means = entropy.mean(0)
    if len(entropy) == 1:
        return means, math.nan
    best, second = means.topk(2, largest=False).indices.tolist()
    gaps = entropy[:, second] - entropy[:, best]
    deviation, gap = gaps.std().item() / math.sqrt(len(gaps)), gaps.mean().item()
    if not deviation:
        return means, 1.0 if gap else 0.5
    return means, 0.5 * (1 + math.erf(gap / deviation / math.sqrt(2)))
