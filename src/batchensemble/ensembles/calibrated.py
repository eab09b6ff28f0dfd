"""Attach a calibrator to a trained model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from batchensemble.core.deprecation import moved_to
from batchensemble.core.outputs import with_logits
from batchensemble.ensembles.calibrators import Calibrator

CalibratedModel = TypeVar("CalibratedModel", bound="Calibrated")


class Calibrated(nn.Module):
    """A module that may have a calibrator.

    Attributes:
        calibrator: calibrator of the ensemble's probabilities, or ``None``. With ``pooling ==
            "before"`` it is applied to the outputs of each call of the model.
    """

    calibrator: Calibrator | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("calibrator", None)

    calibrate = moved_to("batchensemble.calibrate", old="model.calibrate", until="0.3")

    def uncalibrated(self: CalibratedModel) -> CalibratedModel:
        """Return a copy of the model without a calibrator."""
        result = copy.deepcopy(self)
        result.calibrator = None
        for key, hook in list(result._forward_hooks.items()):
            if hook is _calibrated:
                del result._forward_hooks[key]
        return result

    def attach(self, calibrator: Calibrator) -> None:
        """Set the calibrator of the model."""
        if self.calibrator is None:
            # A hook, since training and the checks of conversion call forward without it.
            self.register_forward_hook(_calibrated)
        self.calibrator = calibrator

    def _calibrate_member(self, network: nn.Module, index: int) -> nn.Module:
        """Return a member's plain network with its calibrator, if that pools before the mean."""
        if self.calibrator is not None and self.calibrator.pooling == "before":
            own = copy.deepcopy(self.calibrator)
            own.keep([index])
            network.register_forward_hook(_MemberCalibration(own))
        return network

    def _keep_calibration(self, indices: Sequence[int]) -> None:
        """Keep the calibration of these members; ``ValueError`` if it pools after the mean."""
        if self.calibrator is None:
            return
        if self.calibrator.pooling == "after":
            raise ValueError(
                "the calibrator was fitted to the mean of all members and does not apply to some; "
                "take model.uncalibrated().select(...) and calibrate it"
            )
        self.calibrator.keep(indices)


class _MemberCalibration:
    """A hook that calibrates the outputs of one member, ``[batch, classes, ...]``.

    A hook, since a module around the network would change its class and parameter names.
    """

    def __init__(self, calibrator: Calibrator) -> None:
        self.calibrator = calibrator

    def __call__(self, network: nn.Module, args: Any, outputs: Any) -> Any:
        return with_logits(outputs, self._of_one)

    def _of_one(self, logits: Tensor) -> Tensor:
        self.calibrator = self.calibrator.to(logits.device)
        calibrated: Tensor = self.calibrator(logits.unsqueeze(1)).squeeze(1)
        return calibrated


def _calibrated(model: Calibrated, args: Any, outputs: Any) -> Any:
    """Calibrate outputs: a hook, as a function so that copies do not share a model."""
    calibrator = model.calibrator
    if calibrator is None or calibrator.pooling == "after":
        return None
    return with_logits(outputs, calibrator)
