"""Training in lower precision: autocast around the losses, and a loss scaler for fp16."""

from __future__ import annotations

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.training.objective import Losses
from batchensemble.training.plan import PRECISIONS


def in_precision(losses: Losses, precision: str, device: torch.device) -> Losses:
    """Return losses that are computed under autocast, and are float32.

    Args:
        losses: the losses of an objective.
        precision: a name of :data:`PRECISIONS`.
        device: the device of the network.
    """
    dtype = PRECISIONS[precision]
    if dtype is None:
        return losses

    def lowered(inputs: Inputs, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype):
            return losses(inputs, targets).float()

    return lowered


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """Return a loss scaler for fp16, whose smallest number is 6e-8; ``None`` otherwise."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None
