"""A model whose probabilities are calibrated after training: the original stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from batchensemble.core.deprecation import moved_to
from batchensemble.ensembles.calibrators import Calibrator

Model = TypeVar("Model", bound="Calibrated")


class Calibrated(nn.Module):
    """A module that may have a calibrator.

    Attributes:
        calibrator: ``None``, or what the ensemble's probabilities go through. One with ``pooling ==
            "before"`` scales what a call of the model returns.
    """

    calibrator: Calibrator | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("calibrator", None)

    calibrate = moved_to("batchensemble.calibrate", old="model.calibrate", until="0.3")

    def uncalibrated(self: Model) -> Model:
        """Return a copy of the model without a calibrator."""
        result = copy.deepcopy(self)
        result.calibrator = None
        for key, hook in list(result._forward_hooks.items()):
            if hook is _calibrated:
                del result._forward_hooks[key]
        return result

    def attach(self, calibrator: Calibrator) -> None:
        """Put a calibrator into the model, in place of one that it has."""
        if self.calibrator is None:
            # After forward, which also training and conversion's checks go by.
            self.register_forward_hook(_calibrated)
        self.calibrator = calibrator

    def _calibrate_member(self, network: nn.Module, index: int) -> nn.Module:
        """Return a member's plain network with its part of a calibrator before the mean."""
        if self.calibrator is not None and self.calibrator.pooling == "before":
            own = copy.deepcopy(self.calibrator)
            own.keep([index])
            network.register_forward_hook(_OfMember(own))
        return network

    def _keep_calibration(self, indices: Sequence[int]) -> None:
        """Keep the calibration of these members, or refuse."""
        if self.calibrator is None:
            return
        if self.calibrator.pooling == "after":
            raise ValueError(
                "the calibrator belongs to the mean of all members and cannot be kept for some; "
                "take model.uncalibrated().select(...) and calibrate it"
            )
        self.calibrator.keep(indices)


class _OfMember:
    """A hook that calibrates the outputs of one member, ``[batch, classes, ...]``.

    A hook and no module around the network, which keeps its class, its names and its weights.
    """

    def __init__(self, calibrator: Calibrator) -> None:
        self.calibrator = calibrator

    def __call__(self, network: nn.Module, args: Any, outputs: Any) -> Any:
        self.calibrator = self.calibrator.to(outputs.device)
        return self.calibrator(outputs.unsqueeze(1)).squeeze(1)


def _calibrated(model: Calibrated, args: Any, outputs: Any) -> Any:
    """Return calibrated outputs: a hook, which is a function so that copies do not share it."""
    calibrator = model.calibrator
    return None if calibrator is None or calibrator.pooling == "after" else calibrator(outputs)
