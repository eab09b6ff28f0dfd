"""Twins of the norm layers and of ``PReLU``, with weights, biases and statistics for each member.

Rank-one and independent layers are the same here, since their weights are vectors. With
``norm="shared"`` the members share the weights; running statistics are always each member's own,
since they describe its activations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchensemble.layers.base.autocast import lowered
from batchensemble.layers.base.rows import RUNNING, enter, leave, row_axis, unfold
from batchensemble.layers.base.twin import Twin
from batchensemble.layers.rank_one.options import Options

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class MemberNorm(Twin):
    """A norm layer without running statistics: ``LayerNorm``, ``RMSNorm``, ``GroupNorm``,
    ``InstanceNorm``.

    All rows are normalised at once; then each member's weight and bias are applied.

    Args:
        layer: the plain layer.
        members: number of members (M).
        options: by name, see :class:`batchensemble.layers.rank_one.options.Options`.

    Example:
        >>> twin = MemberNorm(nn.LayerNorm(4), members=3)
        >>> twin(torch.zeros(3 * 2, 7, 4)).shape
        torch.Size([6, 7, 4])
    """

    any_axis = True

    def __init__(self, layer: nn.Module, members: int, **options: object) -> None:
        settings = Options(**options)  # type: ignore[arg-type]
        super().__init__(layer, members, settings.batch_axis if self.any_axis else 0)
        for name, parameter in layer.named_parameters():
            self.hold(name, parameter, own=settings.norm == "member")
        self.sharing = "independent" if self.own else "shared"
        for name, buffer in layer.named_buffers():
            self.hold(name, buffer, own=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the rows and apply each member's weight and bias."""
        if RUNNING.member is not None:
            return self.run_member(RUNNING.member, x)
        weight = self._parameters.get("weight")
        bias = self._parameters.get("bias")
        axis = row_axis(self, x, self.row_axes(x))
        x, times = enter(x, axis, self.members)
        y = unfold(self.normalise(x), self.members, axis)
        if weight is not None and bias is not None:
            y = torch.addcmul(self._spread(bias, y, axis), y, self._spread(weight, y, axis))
        elif weight is not None:
            y = y * self._spread(weight, y, axis)
        return leave(y.flatten(axis, axis + 1), axis, times)

    def row_axes(self, x: Tensor) -> int:
        """Return the number of axes that may hold the rows."""
        return x.dim() - len(self.normalized_shape)

    def normalise(self, x: Tensor) -> Tensor:
        """Normalise without weights."""
        layer = self.shell
        if isinstance(layer, nn.RMSNorm):
            return F.rms_norm(x, layer.normalized_shape, None, layer.eps)
        assert isinstance(layer, nn.LayerNorm)
        return F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)

    def _spread(self, vectors: Tensor, y: Tensor, axis: int) -> Tensor:
        """Return each member's vector in a shape that broadcasts to ``y``, in its type."""
        vectors = vectors.to(y.dtype)
        if not self.own:
            vectors = vectors.unsqueeze(0)
        features = vectors.shape[1:]
        between = y.dim() - axis - 1 - len(features)
        return vectors.view(len(vectors), *[1] * between, *features)

    def roles(self) -> dict[str, str]:
        """Return the role of each parameter."""
        return {name: "norm" for name, _ in self.named_parameters()}


class MemberChannelNorm(MemberNorm):
    """``GroupNorm``, and ``InstanceNorm`` without running statistics: a weight per channel."""

    any_axis = False

    def row_axes(self, x: Tensor) -> int:
        """Return the number of axes that may hold the rows: none without a batch."""
        layer = self.shell
        return 1 if isinstance(layer, nn.GroupNorm) or x.dim() != layer._get_no_batch_dim() else 0

    def normalise(self, x: Tensor) -> Tensor:
        """Normalise without weights."""
        layer = self.shell
        if isinstance(layer, nn.GroupNorm):
            return F.group_norm(x, layer.num_groups, None, None, layer.eps)
        return F.instance_norm(x, eps=layer.eps)

    def _spread(self, vectors: Tensor, y: Tensor, axis: int) -> Tensor:
        vectors = vectors.to(y.dtype)
        if not self.own:
            vectors = vectors.unsqueeze(0)
        return vectors.view(len(vectors), 1, -1, *[1] * (y.dim() - 3))


class MemberBatchNorm(MemberNorm):
    """A norm layer with running statistics: ``BatchNorm``, and ``InstanceNorm`` that tracks them.

    In training each member's rows are normalised separately, one member after the other; in
    evaluation all at once.

    Example:
        >>> twin = MemberBatchNorm(nn.BatchNorm1d(4), members=3)
        >>> twin(torch.randn(3 * 2, 4)).shape, twin.running_mean.shape
        (torch.Size([6, 4]), torch.Size([3, 4]))
    """

    any_axis = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each member's rows."""
        frozen = isinstance(self.shell, nn.modules.batchnorm._BatchNorm) and (
            not self.training and self.running_mean is not None
        )
        if RUNNING.member is not None or not (frozen or self._plain_statistics()):
            return self.one_by_one(x)
        row_axis(self, x, 1)
        x, times = enter(x, 0, self.members)
        if not frozen:
            parts = unfold(x, self.members, 0).unbind()
            outputs = [self._normalise_rows(index, part) for index, part in enumerate(parts)]
            return leave(torch.cat(outputs), 0, times)
        scale = (self.running_var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        y = unfold(x, self.members, 0)
        shape = (self.members, 1, -1, *[1] * (y.dim() - 3))
        y = torch.addcmul(shift.to(y.dtype).view(shape), y, scale.to(y.dtype).view(shape))
        return leave(y.flatten(0, 1), 0, times)

    def _plain_statistics(self) -> bool:
        """Return whether the layer is torch's own batch norm with a moving average."""
        return type(self.shell) in BATCH_NORMS and self.momentum is not None

    def _normalise_rows(self, index: int, x: Tensor) -> Tensor:
        """Normalise a member's rows by their own mean and variance, and update its statistics."""
        self.shell._check_input_dim(x)
        mean, variance, weight, bias = (
            None if each is None else each[index] if name in self.own else each
            for name in ("running_mean", "running_var", "weight", "bias")
            for each in (getattr(self, name),)
        )
        if self.num_batches_tracked is not None:
            self.num_batches_tracked[index] += 1
        return F.batch_norm(x, mean, variance, weight, bias, True, self.momentum, self.eps)


class MemberPReLU(MemberNorm):
    """``PReLU`` with a slope for each member.

    Example:
        >>> twin = MemberPReLU(nn.PReLU(4), members=3)
        >>> twin(torch.zeros(3 * 2, 4, 5)).shape
        torch.Size([6, 4, 5])
    """

    any_axis = False

    def forward(self, x: Tensor) -> Tensor:
        """Multiply negative inputs by each member's slope."""
        if RUNNING.member is not None:
            return self.run_member(RUNNING.member, x)
        axis = row_axis(self, x, x.dim() if self.num_parameters == 1 else 1)
        x, times = enter(lowered(x), axis, self.members)
        y = unfold(x, self.members, axis)
        weight = self.weight if self.own else self.weight.unsqueeze(0)
        slope = weight.to(y.dtype).view(len(weight), 1, -1, *[1] * (y.dim() - axis - 3))
        if axis + 2 >= y.dim():
            slope = weight.to(y.dtype).view(len(weight), *[1] * (y.dim() - axis - 1))
        y = torch.where(y > 0, y, slope * y)
        return leave(y.flatten(axis, axis + 1), axis, times)
