"""A moving average of the weights, which is scored, and replaces the last weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from batchensemble.training.callbacks.base import Callback, TrainingState


class WeightAveraging(Callback):
    """Exponential moving average of all weights (Polyak and Juditsky 1992; Izmailov et al. 2018).

    Args:
        decay: the factor on the average in each step, 0 to 1, such as 0.999; lower in the first
            steps, so that the initial weights are forgotten.
    """

    every_process = True
    key, earlier_keys = "moving average", ("Averaging",)

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0

    def on_start(self, run: TrainingState) -> None:
        """Start from the current weights, or from the average of a checkpoint."""
        average = copy.deepcopy(run.model).requires_grad_(False)
        if self.steps:
            average.load_state_dict(self.saved)
        run.scored = average
        self.average = average

    @torch.no_grad()
    def on_step(self, run: TrainingState) -> None:
        """Move the average towards the weights."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        averages: list[torch.Tensor] = list(self.average.parameters())
        values: list[torch.Tensor] = list(run.model.parameters())
        torch._foreach_lerp_(averages, values, 1 - decay)
        for own, value in zip(self.average.buffers(), run.model.buffers(), strict=True):
            own.copy_(value)

    def on_end(self, run: TrainingState) -> None:
        """Put the average into the model."""
        run.model.load_state_dict(self.average.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the average and its number of steps."""
        return {"steps": self.steps, **{f"w.{k}": v for k, v in self.average.state_dict().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.steps = state["steps"]
        self.saved = {name[2:]: value for name, value in state.items() if name.startswith("w.")}
