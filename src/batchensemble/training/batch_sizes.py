"""The smallest number of rows that a training runs at once, and whether the network takes it.

Batch norm, and all else that needs the variance over a batch, does not take a single row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import ArrayBatches, Batches, LoaderBatches
from batchensemble.data.streaming import StreamBatches
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.forward import ALONE
from batchensemble.layers.modes import preserve_modes
from batchensemble.training.distributed.processes import split_by_size

if TYPE_CHECKING:
    from batchensemble.training.objective import Objective

RowCount = Callable[[int], int]


def check_smallest_batch(
    model: Ensemble, objective: Objective, batches: Batches, inputs: Inputs | None = None
) -> None:
    """Raise ``ValueError`` if a batch, or a part of one, is a single row that the network refuses.

    The row is tried in training mode, only if there is one; the model is not changed.

    Args:
        model: the ensemble.
        objective: how a batch is divided.
        batches: the batches of the training data.
        inputs: some of their inputs; by default the first ones of arrays, or zeros for a file.
    """
    found = sizes_of(batches)
    if found is None or model.batch_axis != 0:
        return
    if inputs is None and isinstance(batches, LoaderBatches):
        return  # this is called again with the first batch
    examples, size, drops = found

    # A member has at least its share of a batch; the exact number of rows depends on the draw.
    last = size if drops else examples % size or size
    strategy = objective.strategy
    members = model.members if strategy is None else strategy.whole.members  # in all processes
    if objective.micro_batch is None and min(size, last) > 2 * members:
        return
    if inputs is None:
        inputs = _two_examples(batches)
    own = objective.own_examples
    if own and not isinstance(batches, LoaderBatches):

        def of_members(each: Tensor) -> Tensor:
            return each.unsqueeze(1).expand(-1, model.members, *each.shape[1:])

        inputs = of_members(inputs) if isinstance(inputs, Tensor) else inputs.map(of_members)
    problem = _error_of(model, inputs[:1], own=own)
    two = torch.arange(2) % len(inputs)
    if problem is None or _error_of(model, inputs[two], own=own) is not None:
        return  # it takes one row, or is refused for another reason
    rows_of = _rows_of(batches)

    def fewest(size: int, micro_batch: int | None) -> int:
        return _fewest(examples, size, micro_batch, objective, rows_of, drops=drops)

    if fewest(size, objective.micro_batch) > 1:
        return
    raise ValueError(
        f"in training the network does not take one row alone ({problem}), and "
        f"{_advice(examples, size, objective, fewest)}"
    )


def sizes_of(batches: Batches) -> tuple[int, int, bool] | None:
    """Return the number of examples, the batch size, and whether a smaller last batch is dropped.

    Returns:
        ``None`` for a loader that does not know them.
    """
    if isinstance(batches, ArrayBatches):
        return len(batches.inputs), batches.batch_size, False
    if isinstance(batches, StreamBatches):
        return batches.files.rows, batches.batch_size, False
    if not isinstance(batches, LoaderBatches) or not batches.has_length:
        return None
    loader = batches.loader
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return None
    return len(loader.sampler), loader.batch_size, loader.drop_last  # type: ignore[arg-type]


def raise_for_single_row(error: Exception) -> None:
    """Raise ``ValueError`` if batch norm refused a single row that could not be foreseen.

    Args:
        error: the error of a training step.
    """
    if ALONE in str(error):
        raise ValueError(
            "a batch of the training, or a part of one, is one row alone, which batch norm does "
            f"not take ({_first_line(error)}): give batches of another size, or drop_last=True to "
            "the DataLoader"
        ) from error


def _rows_of(batches: Batches) -> RowCount:
    """Return a function from a batch's examples to the rows of one member."""

    def rows(batch: int) -> int:
        if batches.draw is None:
            return batch
        with torch.random.fork_rng([]):
            return int(batches.draw(torch.arange(batch)).shape[-1])

    return rows


def _fewest(
    examples: int,
    size: int,
    micro_batch: int | None,
    objective: Objective,
    rows_of: RowCount,
    *,
    drops: bool,
) -> int:
    """Return the smallest number of rows that the network runs at once."""
    last = examples % size
    whole = {size} if examples >= size else set()
    sizes = whole if drops or not last else {*whole, last}
    fewest: float = math.inf
    for batch in sizes:
        rows = rows_of(batch)
        strategy, own = objective.strategy, rows
        if strategy is not None:
            taken, _ = strategy.rows(rows)
            own = taken.stop - taken.start
        if micro_batch is None:
            fewest = min(fewest, own)
            continue
        parts = split_by_size(own, micro_batch)
        if strategy is not None:
            parts = strategy.parts(own, rows, micro_batch)
        fewest = min(fewest, *(each.stop - each.start for each in parts))
    if objective.strategy is not None:
        fewest = min(objective.strategy.processes.collect(fewest))
    return 2 if fewest == math.inf else int(fewest)


def _advice(
    examples: int,
    size: int,
    objective: Objective,
    fewest: Callable[[int, int | None], int],
) -> str:
    """Return which part of the data is a single row, and what to do about it."""
    micro = objective.micro_batch
    if examples < 2:
        return "there is one example; give at least two"
    if micro is not None and fewest(size, None) > 1:
        better = next(
            (each for each in range(max(2, micro), size + 1) if fewest(size, each) > 1), None
        )
        give = "leave micro_batch out" if better is None else f"give micro_batch={better}"
        return f"batches of {size} in parts of micro_batch={micro} end in such a part; {give}"
    near = sorted(range(2, examples + 1), key=lambda each: (abs(each - size), each))
    better = next((each for each in near if fewest(each, micro) > 1), None)
    give = "give more examples" if better is None else f"give batch_size={better}"
    last = examples % size
    if size == 1:
        return f"batch_size=1 is such a row; {give}"
    if last == 1:
        what = f"{examples} examples in batches of {size} leave one over"
    else:
        what = f"a batch of {last or size} examples gives each member one of them as its share"
    return f"{what}; {give}, or leave it out: a DataLoader does with drop_last=True"


def _two_examples(batches: Batches) -> Inputs:
    """Return the first two examples of arrays, or zeros for a file."""
    if isinstance(batches, ArrayBatches):
        return batches.inputs[:2]
    assert isinstance(batches, StreamBatches)
    shape = (2, batches.files.width)
    return torch.zeros(shape, dtype=batches.dtype, device=batches.device)


def _error_of(model: Ensemble, inputs: Inputs, *, own: bool) -> str | None:
    """Return why the network does not take inputs in training mode; ``None`` if it does."""
    kept = {name: each.clone() for name, each in model.named_buffers()}
    device = next(model.parameters(), torch.empty(0)).device
    devices = [device] if device.type == "cuda" else []
    try:
        with preserve_modes(model), torch.no_grad(), torch.random.fork_rng(devices):
            model.train()
            model(inputs, per_member=own)
    except (RuntimeError, ValueError) as error:
        return _first_line(error)
    finally:
        with torch.no_grad():
            for name, each in model.named_buffers():
                if name in kept:
                    each.copy_(kept[name])
    return None


def _first_line(error: Exception) -> str:
    """Return the first line of a module's error, without what the ensemble adds."""
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]
