"""``History``: what a training did, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from batchensemble.compilation import Compilation


@dataclass
class History:
    """What a training did, one entry an epoch.

    Attributes:
        losses: mean over examples and members, nats for the cross-entropy.
        member_losses: each member's mean over the examples; one column with
            ``loss_on="mean_logits"``.
        last_batch_losses: the loss of the last batch alone, as the notebook prints it.
        validation_nll: held-out negative log-likelihood of the ensemble, nats; empty without
            validation data.
        seconds: duration of the training, validation not counted.
        examples: examples gone through, one that two members saw apart counted twice.
        forward_calls: how often a network was called.
        compilation: what ``compile=True`` gained; ``None`` without it.
    """

    losses: list[float] = field(default_factory=list)
    member_losses: list[list[float]] = field(default_factory=list)
    last_batch_losses: list[float] = field(default_factory=list)
    validation_nll: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    forward_calls: list[int] = field(default_factory=list)
    compilation: Compilation | None = None

    @property
    def total_seconds(self) -> float:
        """Seconds of all epochs."""
        return sum(self.seconds)

    @property
    def total_forward_calls(self) -> int:
        """Calls of a network in all epochs."""
        return sum(self.forward_calls)

    @property
    def examples_per_second(self) -> float:
        """Examples gone through in a second of training."""
        return sum(self.examples) / self.total_seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the history as JSON can hold it."""
        result = asdict(replace(self, compilation=None))
        del result["compilation"]
        if self.compilation is not None:
            result["compilation"] = self.compilation.as_dict()
        return result

    def record(
        self, losses: list[Tensor], seconds: float, calls: int, examples_a_row: int = 1
    ) -> None:
        """Add an epoch.

        Args:
            losses: of its batches, ``[batch, members]`` each.
            seconds: how long it took.
            calls: how often a network was called.
            examples_a_row: more than 1 where the members share a batch out.
        """
        by_member = torch.cat(losses).mean(0)
        self.losses.append(by_member.mean().item())
        self.member_losses.append(by_member.tolist())
        self.last_batch_losses.append(losses[-1].mean().item())
        self.seconds.append(seconds)
        self.examples.append(sum(len(batch) for batch in losses) * examples_a_row)
        self.forward_calls.append(calls)


def check_finite(history: History, lr: float) -> None:
    """Raise ``FloatingPointError`` if the loss of the last epoch is NaN or infinite."""
    if not math.isfinite(history.losses[-1]):
        raise FloatingPointError(
            f"training diverged: the loss was {history.losses[-1]} in epoch {len(history.losses)}; "
            f"try a learning rate below {lr:g}"
        )
