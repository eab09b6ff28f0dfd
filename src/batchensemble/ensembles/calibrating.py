"""A model whose probabilities are calibrated after training: the original stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import nn

if TYPE_CHECKING:
    from batchensemble.calibration import Calibrator

Model = TypeVar("Model", bound="Calibrating")


class Calibrating(nn.Module):
    """A module that may have a calibrator.

    Attributes:
        calibrator: ``None``, or what the ensemble's probabilities go through. One with ``pooling ==
            "before"`` scales what a call of the model returns.
    """

    calibrator: Calibrator | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("calibrator", None)

    def calibrate(
        self: Model,
        data: Any,
        *,
        method: Literal["temperature", "vector", "platt", "isotonic"] = "temperature",
        pooling: Literal["before", "after"] = "before",
        per_member: bool = False,
        target: str | None = None,
        class_names: Sequence[Any] = (),
        memory_limit: int | None = None,
    ) -> Model:
        """Return a copy of the model whose probabilities are calibrated on these data.

        Give data that the model was not trained on, and score it on yet others: a network is surer
        of its training examples than of any others, so what is fitted to them leaves it too sure,
        and scores on the calibration data are too good. The data of the last training are known
        again, also by a saved model, and warned of; a part of them, another order, or what a data
        loader yields is not.

        Before averaging, each member's logits are scaled: a call of the copy returns scaled logits,
        and the uncertainties are of scaled members. The temperature and the weights of ``"vector"``
        are those with which the members' *mean* is most likely; calibrating each member alone would
        make the mean too unsure. After averaging, the members stay as they are, and ``predict``
        puts the ensemble's probabilities through the calibrator. ``benchmarks/calibration.py``
        compares the two.

        :meth:`member` gives what the copy computes for that member: with a calibrator that pools
        before averaging a network whose outputs are calibrated, by a forward hook, so that its
        weights and names stay the user's own; with one that pools after, which changes no member,
        the member as it was. ``uncalibrated().member(i)`` is without. :meth:`select` keeps one that
        pools before averaging; one that pools after belongs to the mean of all and cannot be kept.
        To train on, take :meth:`uncalibrated`, and calibrate again after it.

        Args:
            data: inputs and class numbers, in any form that :func:`batchensemble.fit` takes.
            method: ``"temperature"``, one number, which changes no predicted class where it is
                applied after averaging; ``"vector"``, a weight and a bias a class; ``"platt"``, a
                sigmoid a class; ``"isotonic"``, a rising function a class. The last two fit each
                class against the others, before averaging to the members' own probabilities, and
                are then normalised; only the first two are never worse than no calibration, on the
                data given.
            pooling: ``"before"`` or ``"after"`` averaging.
            per_member: whether each member has numbers of its own, before averaging.
            target: the column or key of the labels.
            class_names: the classes in the order of their numbers, where the labels are text; by
                default those of the training.
            memory_limit: bytes; larger files are streamed, though all outputs are kept.

        Returns:
            A model of the same class. A calibrator that the model has already is replaced.

        Raises:
            TypeError: the data are of the wrong type.
            ValueError: an argument is out of range; the data are empty, do not fit the network,
                hold one class only, lack a class that the method needs, or are too few for
                ``"isotonic"``; the network's outputs are no logits of classes, or not finite.

        Example:
            >>> import torch
            >>> from batchensemble import BatchEnsemble, fit, predict
            >>> X = torch.randn(600, 2)
            >>> y = (X[:, 0] + torch.randn(600) > 0).long()
            >>> model = BatchEnsemble(nn.Linear(2, 2), members=4)
            >>> history = fit(model, (X[:300], y[:300]), lr=0.03)
            >>> calibrated = model.calibrate((X[300:], y[300:]), pooling="after")
            >>> predict(calibrated, X).together.shape, model.calibrator
            ((600, 2), None)
        """
        # An ensemble needs neither SciPy nor data to be one.
        from batchensemble.calibration.calibrate import calibrate
        from batchensemble.sources import MEMORY_LIMIT

        return calibrate(  # type: ignore[type-var]
            self,
            data,
            method=method,
            pooling=pooling,
            per_member=per_member,
            target=target,
            class_names=class_names,
            memory_limit=MEMORY_LIMIT if memory_limit is None else memory_limit,
        )

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


def _calibrated(model: Calibrating, args: Any, outputs: Any) -> Any:
    """Return calibrated outputs: a hook, which is a function so that copies do not share it."""
    calibrator = model.calibrator
    return None if calibrator is None or calibrator.pooling == "after" else calibrator(outputs)
