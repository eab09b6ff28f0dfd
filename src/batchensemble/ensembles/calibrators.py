"""Calibrators: modules that map a trained ensemble's logits to calibrated logits.

With pooling ``"before"`` the input is each member's logits, calibrated before the members'
probabilities are averaged; with pooling ``"after"`` it is the log of the members' mean
probabilities.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchensemble.layers.base.any_batch import is_exported

Pooling = Literal["before", "after"]
TINY = torch.finfo(torch.float64).tiny


class Calibrator(nn.Module, ABC):
    """The base class of calibrators: fitted parameters as buffers, and tensor operations.

    The buffers stay float32 even if the model is cast, since bfloat16 is too coarse for thresholds.

    Args:
        pooling: whether it is applied ``"before"`` or ``"after"`` the mean over the members.
        buffers: the fitted parameters by name; their first axis is the members, or of length 1 if
            all members share them.
    """

    method: str  # its name in the API and on the command line
    axes: ClassVar[Mapping[str, int]]  # number of axes of each buffer: members, classes, ...

    def __init__(self, pooling: Pooling, **buffers: Tensor) -> None:
        super().__init__()
        self.pooling = pooling
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().to(torch.float32))

    @property
    def per_member(self) -> bool:
        """Whether each member has its own parameters."""
        return len(next(self.buffers())) > 1

    def forward(self, logits: Tensor) -> Tensor:
        """Return calibrated logits of the same shape and type.

        Args:
            logits: ``[batch, members, classes, ...]`` before the mean, ``[batch, classes, ...]``
                after it.

        Raises:
            ValueError: the number of classes differs from the calibrator's.
        """
        after = self.pooling == "after"
        given, first = logits.unsqueeze(1) if after else logits, next(self.buffers())
        if first.dim() > 1 and first.shape[1] != given.shape[2]:
            raise ValueError(
                f"the calibrator is for {first.shape[1]} classes, and the network has "
                f"{given.shape[2]}; calibrate the model again"
            )
        scaled = self.scaled(given).to(logits.dtype)
        return scaled.squeeze(1) if after else scaled

    @abstractmethod
    def scaled(self, logits: Tensor) -> Tensor:
        """Return calibrated logits ``[batch, members, classes, ...]``."""

    def of_mean(self, member_probs: np.ndarray) -> np.ndarray:
        """Return the ensemble's calibrated probabilities, for pooling ``"after"``.

        Args:
            member_probs: ``[examples, members, classes, ...]``, float64.

        Returns:
            ``[examples, classes, ...]``.
        """
        mean = torch.from_numpy(np.ascontiguousarray(member_probs.mean(1)))
        with torch.no_grad():
            probs: np.ndarray = self.on_cpu()(log_of(mean)).softmax(1).numpy()
        return probs

    def on_cpu(self) -> Calibrator:
        """Return the calibrator on the CPU, since not all devices support float64."""
        first = next(self.buffers())
        return self if first.device.type == "cpu" else copy.deepcopy(self).cpu()

    def keep(self, indices: Sequence[int]) -> None:
        """Keep the parameters of these members only, if each has its own."""
        if self.per_member:
            for name, value in list(self.named_buffers()):
                self.register_buffer(name, value[list(indices)].clone())

    def check(self) -> None:
        """Check the range of the parameters.

        Raises:
            ValueError: a parameter is not finite or out of range.

        Example:
            >>> Temperature("after", temperature=torch.tensor([0.0])).check()
            Traceback (most recent call last):
            ValueError: a temperature must be a finite number above 0; calibrate the model again
        """
        wrong = self._wrong()
        if wrong:
            raise ValueError(f"{wrong}; calibrate the model again")

    def _wrong(self) -> str:
        """Return what is wrong with the parameters; empty if nothing is."""
        return ""

    def settings(self) -> dict[str, Any]:
        """Return method, pooling and shapes as JSON can hold them, see :func:`empty_calibrator`."""
        shapes = {name: list(value.shape) for name, value in self.named_buffers()}
        return {"method": self.method, "pooling": self.pooling, "shapes": shapes}

    def extra_repr(self) -> str:
        """Return when it is applied, for ``repr``."""
        return f"pooling={self.pooling!r}, per_member={self.per_member}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def moved(value: Tensor) -> Tensor:
            there = fn(value)
            return there if value.is_meta else value.to(there.device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call]


class Temperature(Calibrator):
    """Temperature scaling: logits divided by a temperature (Guo et al. 2017, arXiv 1706.04599).

    Args:
        pooling: whether it is applied ``"before"`` or ``"after"`` the mean over the members.
        temperature: ``[1]`` or ``[members]``, above 0; above 1 it lowers the confidence.

    Example:
        >>> half = Temperature("before", temperature=torch.tensor([2.0]))
        >>> half(torch.tensor([[[4.0, 0.0]]]))
        tensor([[[2., 0.]]])
    """

    method = "temperature"
    axes: ClassVar[Mapping[str, int]] = {"temperature": 1}
    temperature: Tensor

    def __init__(self, pooling: Pooling, temperature: Tensor) -> None:
        super().__init__(pooling, temperature=temperature)

    def scaled(self, logits: Tensor) -> Tensor:
        """Return the logits divided by the temperature."""
        return logits / _along(self.temperature, logits)

    def _wrong(self) -> str:
        fine = _above_0(self.temperature)
        return "" if fine else "a temperature must be a finite number above 0"


class Vector(Calibrator):
    """Vector scaling: a weight and a bias for each class's log-probability (Guo et al. 2017).

    It scales log-probabilities, since the result of scaling logits would depend on their offset.

    Args:
        pooling: whether it is applied ``"before"`` or ``"after"`` the mean over the members.
        weight: ``[1 or members, classes]``, above 0.
        bias: ``[1 or members, classes]``.
    """

    method = "vector"
    axes: ClassVar[Mapping[str, int]] = {"weight": 2, "bias": 2}
    weight: Tensor
    bias: Tensor

    def __init__(self, pooling: Pooling, weight: Tensor, bias: Tensor) -> None:
        super().__init__(pooling, weight=weight, bias=bias)

    def scaled(self, logits: Tensor) -> Tensor:
        """Return the weighted log-probabilities."""
        log_probs = logits.log_softmax(2)
        return log_probs * _along(self.weight, logits) + _along(self.bias, logits)

    def _wrong(self) -> str:
        fine = _above_0(self.weight) and bool(self.bias.isfinite().all())
        return "" if fine else "weights must be finite numbers above 0, and biases finite"


class Platt(Calibrator):
    """Platt scaling: a sigmoid of each class's log-odds (Platt 1999), normalised over classes.

    Args:
        pooling: whether it is applied ``"before"`` or ``"after"`` the mean over the members.
        slope: ``[1 or members, classes]``.
        bias: ``[1 or members, classes]``.
    """

    method = "platt"
    axes: ClassVar[Mapping[str, int]] = {"slope": 2, "bias": 2}
    slope: Tensor
    bias: Tensor

    def __init__(self, pooling: Pooling, slope: Tensor, bias: Tensor) -> None:
        super().__init__(pooling, slope=slope, bias=bias)

    def scaled(self, logits: Tensor) -> Tensor:
        """Return the log of the normalised probabilities."""
        odds = log_odds(logits, 2)
        found = F.logsigmoid(odds * _along(self.slope, logits) + _along(self.bias, logits))
        return found.log_softmax(2)

    def _wrong(self) -> str:
        fine = bool(self.slope.isfinite().all() and self.bias.isfinite().all())
        return "" if fine else "slopes and biases must be finite numbers"


class Isotonic(Calibrator):
    """Isotonic regression of each class's probability (Zadrozny and Elkan 2002), normalised.

    Linear between thresholds, as in scikit-learn, and constant outside them.

    Args:
        pooling: whether it is applied ``"before"`` or ``"after"`` the mean over the members.
        thresholds: increasing probabilities, ``[1 or members, classes, thresholds]``; padded with
            infinity.
        values: calibrated probability at each threshold, above 0, of the same shape.
    """

    method = "isotonic"
    axes: ClassVar[Mapping[str, int]] = {"thresholds": 3, "values": 3}
    thresholds: Tensor
    values: Tensor

    def __init__(self, pooling: Pooling, thresholds: Tensor, values: Tensor) -> None:
        super().__init__(pooling, thresholds=thresholds, values=values)

    def scaled(self, logits: Tensor) -> Tensor:
        """Return the log of the normalised probabilities."""
        probs = logits.softmax(2).movedim((1, 2), (0, 1))  # [members, classes, batch, ...]
        given = probs.flatten(2).float().contiguous()
        members, classes, _ = given.shape
        thresholds = self.thresholds.expand(members, classes, -1).contiguous()
        values = self.values.expand(members, classes, -1)
        if is_exported():  # there is no such operation in ONNX
            above = (thresholds.unsqueeze(2) < given.unsqueeze(3)).sum(3)
        else:
            above = torch.searchsorted(thresholds, given)
        above = above.clamp(1, thresholds.shape[-1] - 1)
        low, high = thresholds.gather(-1, above - 1), thresholds.gather(-1, above)
        # Thresholds that are equal in float32 give 0 / 0.
        share = ((given - low) / (high - low)).clamp(0, 1).nan_to_num(0)
        found = torch.lerp(values.gather(-1, above - 1), values.gather(-1, above), share)
        return found.log().view(probs.shape).movedim((0, 1), (1, 2)).log_softmax(2)

    def _wrong(self) -> str:
        rising = all(
            bool((each[..., 1:] >= each[..., :-1]).all()) for each in (self.thresholds, self.values)
        )
        fine = rising and _above_0(self.values) and bool((self.values <= 1).all())
        return "" if fine else "thresholds must rise, and values too, from above 0 to at most 1"


CALIBRATORS: dict[str, type[Calibrator]] = {
    each.method: each for each in (Temperature, Vector, Platt, Isotonic)
}


def empty_calibrator(settings: Mapping[str, Any], device: str = "cpu") -> Calibrator:
    """Return a calibrator whose buffers are not yet loaded.

    Args:
        settings: the result of :meth:`Calibrator.settings`.
        device: device of the buffers, by default the CPU; on ``"meta"`` they take no memory.

    Example:
        >>> one = Temperature("after", temperature=torch.tensor([2.0]))
        >>> empty_calibrator(one.settings())
        Temperature(pooling='after', per_member=False)
    """
    shapes = settings["shapes"]
    buffers = {name: torch.ones(shape, device=device) for name, shape in shapes.items()}
    return CALIBRATORS[settings["method"]](settings["pooling"], **buffers)


def log_of(probs: Tensor) -> Tensor:
    """Return the log of probabilities, replacing 0 by the smallest positive float64."""
    return probs.clamp(min=TINY).log()


def log_odds(logits: Tensor, axis: int) -> Tensor:
    """Return the log-odds of each class against all others, precise near 0 and 1.

    Example:
        >>> log_odds(torch.tensor([0.0, 3.0]), 0)
        tensor([-3.,  3.])
    """
    top = logits.argmax(axis, keepdim=True)
    others = logits.scatter(axis, top, float("-inf")).logsumexp(axis, keepdim=True)
    # Only the most probable class can exceed 0.5, where 1 - p would cancel.
    log_probs = logits.log_softmax(axis)
    below = log_probs - torch.log1p(-log_probs.exp().clamp(max=0.5))
    return below.scatter(axis, top, logits.gather(axis, top) - others)


def _above_0(values: Tensor) -> bool:
    return bool((values.isfinite() & (values > 0)).all())


def _along(values: Tensor, logits: Tensor) -> Tensor:
    """Return parameters ``[members]`` or ``[members, classes]`` that broadcast to logits."""
    values = values.to(logits.dtype)
    return values.view(1, *values.shape, *[1] * (logits.dim() - 1 - values.dim()))
