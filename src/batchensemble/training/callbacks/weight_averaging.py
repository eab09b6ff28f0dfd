"""A moving average of the weights, which is scored and kept in place of the last ones."""

from __future__ import annotations

import copy
from typing import Any

import torch

from batchensemble.training.callbacks.base import Callback, TrainingState


class WeightAveraging(Callback):
    """Exponential moving average of all weights (Polyak and Juditsky 1992; Izmailov et al. 2018).

    Args:
        decay: how much of the average stays in a step, such as 0.999; in the first steps less, so
            that the start is forgotten.
    """

    every_process = True
    key, earlier_keys = "moving average", ("Averaging",)

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0

    def on_start(self, run: TrainingState) -> None:
        """Begin with the weights as they are."""
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
        """Leave the average in the model."""
        run.model.load_state_dict(self.average.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and over how many steps it goes."""
        return {"steps": self.steps, **{f"w.{k}": v for k, v in self.average.state_dict().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps = state["steps"]
        self.saved = {name[2:]: value for name, value in state.items() if name.startswith("w.")}
