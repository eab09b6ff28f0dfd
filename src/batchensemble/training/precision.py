"""Lower precision in training: autocast around the losses, and a scaler for fp16."""

from __future__ import annotations

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.training.objective import Losses
from batchensemble.training.plan import PRECISIONS


def in_precision(losses: Losses, precision: str, device: torch.device) -> Losses:
    """Return losses whose products are computed in another type, and which come out as float32.

    Args:
        losses: of an objective.
        precision: a name of :data:`PRECISIONS`.
        device: of the network.
    """
    dtype = PRECISIONS[precision]
    if dtype is None:
        return losses

    def lowered(inputs: Inputs, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype):
            return losses(inputs, targets).float()

    return lowered


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """Return what keeps gradients from vanishing in fp16, whose smallest number is 6e-8."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None
