"""The registry of twins: for each class of layer its rank-one and its independent twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import is_parametrized

from batchensemble.core.arguments import one_of
from batchensemble.layers import (
    MemberBatchNorm,
    MemberChannelNorm,
    MemberNorm,
    MemberPReLU,
    RankOneAttention,
    RankOneBilinear,
    RankOneCell,
    RankOneConv1D,
    RankOneConvolution,
    RankOneEmbedding,
    RankOneEmbeddingBag,
    RankOneLinear,
    RankOneRecurrent,
    RankOneTransposedConvolution,
    StackedLinear,
    Twin,
)
from batchensemble.layers.attention import IndependentAttention
from batchensemble.layers.recurrent import IndependentRecurrent

Stack = Callable[[Sequence[Any]], nn.Module]
Factory = TypeVar("Factory", bound=Callable[..., nn.Module])

ALL_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.PReLU, *ALL_BATCH_NORMS, *INSTANCE_NORMS)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def instance_norm(layer: nn.Module, members: int, **options: Any) -> Twin:
    """Return the twin of an ``InstanceNorm``, with or without running statistics."""
    kind = MemberBatchNorm if layer.track_running_stats else MemberChannelNorm
    return kind(layer, members, **options)


RANK_ONE: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Linear: RankOneLinear,
    nn.Bilinear: RankOneBilinear,
    nn.Conv1d: RankOneConvolution,
    nn.Conv2d: RankOneConvolution,
    nn.Conv3d: RankOneConvolution,
    nn.ConvTranspose1d: RankOneTransposedConvolution,
    nn.ConvTranspose2d: RankOneTransposedConvolution,
    nn.ConvTranspose3d: RankOneTransposedConvolution,
    nn.Embedding: RankOneEmbedding,
    nn.EmbeddingBag: RankOneEmbeddingBag,
    nn.MultiheadAttention: RankOneAttention,
    nn.RNN: RankOneRecurrent,
    nn.LSTM: RankOneRecurrent,
    nn.GRU: RankOneRecurrent,
    nn.RNNCell: RankOneCell,
    nn.LSTMCell: RankOneCell,
    nn.GRUCell: RankOneCell,
    nn.LayerNorm: MemberNorm,
    nn.RMSNorm: MemberNorm,
    nn.GroupNorm: MemberChannelNorm,
    nn.PReLU: MemberPReLU,
    **dict.fromkeys(INSTANCE_NORMS, instance_norm),
    **dict.fromkeys(ALL_BATCH_NORMS, MemberBatchNorm),
}
# Classes with stacked twins, so that a deep ensemble of them runs at once.
STACKED = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.PReLU, *ALL_BATCH_NORMS)
# For classes that are missing here each member has a copy.
INDEPENDENT: dict[type[nn.Module], Stack] = {
    nn.Linear: StackedLinear,
    nn.LayerNorm: MemberNorm.of,
    nn.RMSNorm: MemberNorm.of,
    nn.GroupNorm: MemberChannelNorm.of,
    nn.PReLU: MemberPReLU.of,
    **dict.fromkeys(ALL_BATCH_NORMS, MemberBatchNorm.of),
    nn.MultiheadAttention: IndependentAttention,
    nn.RNN: IndependentRecurrent,
    nn.LSTM: IndependentRecurrent,
    nn.GRU: IndependentRecurrent,
}
# Methods that a subclass may define without changing what it computes, besides special ones.
HARMLESS = {"extra_repr", "reset_parameters", "_load_from_state_dict"}
# Layers of optional libraries, by their full name.
RANK_ONE_BY_NAME = {"transformers.pytorch_utils.Conv1D": RankOneConv1D}


def twin(layer: type[nn.Module], sharing: str = "rank_one") -> Callable[[Factory], Factory]:
    """Register the twin of a class of layer; a decorator for a class or a function.

    Args:
        layer: the plain class.
        sharing: ``"rank_one"`` (default): the twin is called with the layer, the number of members
            and the options of :class:`~batchensemble.layers.rank_one.options.Options` by name;
            subclass :class:`~batchensemble.layers.RankOne` and list its weight matrices.
            ``"independent"``: the twin is called with a list of layers, one for each member.

    Example:
        >>> from batchensemble.layers import RankOne
        >>> class Scale(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.scale = nn.Parameter(torch.ones(3))
        ...     def forward(self, x):
        ...         return x * self.scale
        >>> @twin(Scale)
        ... class MemberScale(RankOne):
        ...     "Each member has a scale of its own."
        >>> from batchensemble import BatchEnsemble
        >>> BatchEnsemble(Scale(), members=4)(torch.zeros(5, 3)).shape
        torch.Size([5, 4, 3])
    """
    registry = (
        RANK_ONE
        if one_of("sharing", sharing, ("rank_one", "independent")) == "rank_one"
        else INDEPENDENT
    )

    def register(factory: Factory) -> Factory:
        registry[layer] = factory
        return factory

    return register


def find(module: nn.Module) -> tuple[Callable[..., Any] | None, bool]:
    """Return the rank-one twin of a layer, and whether the layer overrides the computation.

    A subclass of a known layer that overrides nothing is treated as that layer; if it overrides
    ``forward`` or a method that it may call, its members run through its own ``forward``.
    """
    kinds = type(module).__mro__
    for position, kind in enumerate(kinds):
        known = RANK_ONE.get(kind, RANK_ONE_BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}"))
        if known is not None:
            names = {name for each in kinds[:position] for name in vars(each)} - HARMLESS
            return known, any(_computes(name) and hasattr(kind, name) for name in names)
    return None, False


def _computes(name: str) -> bool:
    return name == "__call__" or not name.startswith("__")


def needs_twin(module: nn.Module) -> bool:
    """Return whether a module itself holds weights or mixes the rows of a batch (batch norm)."""
    if holds_parameters(module):
        return True
    if isinstance(module, INSTANCE_NORMS):
        return module.track_running_stats
    return isinstance(module, _NormBase)


def holds_parameters(module: nn.Module) -> bool:
    """Return whether a module itself, without modules beneath it, holds parameters."""
    return next(module.parameters(recurse=False), None) is not None


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm layer, or ``PReLU``, which is treated like one."""
    return isinstance(module, NORMS)


def refusal(module: nn.Module) -> str | None:
    """Return why a layer cannot have a rank-one twin, or ``None``."""
    if "forward" in module.__dict__:
        return "has a forward that was set on this object, bound to its original weights"
    if is_parametrized(module):
        parts = ", ".join(module.parametrizations)  # type: ignore[arg-type]
        return (
            f"computes its {parts} by a parametrization; merge it first with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    for name, parameter in module.named_parameters(recurse=False):
        if not parameter.is_floating_point():
            return f"holds {name} of type {parameter.dtype}, and fast weights are floating-point"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        for setting in ("max_norm", "scale_grad_by_freq"):
            if getattr(module, setting):
                return f"has {setting} set, which would act on the rows of all members together"
    return None


def is_lazy(module: nn.Module) -> bool:
    """Return whether a module has lazy parameters, whose shapes are not known yet."""
    lazy = torch.nn.parameter.UninitializedParameter
    return any(isinstance(parameter, lazy) for parameter in module.parameters(recurse=False))


def weight_hook(module: nn.Module) -> str | None:
    """Return the name of the old-style norm that computes a module's weight by a hook, or ``None``.

    Such a weight is not a parameter and cannot be copied.
    """
    kinds = {type(hook).__name__ for hook in module._forward_pre_hooks.values()}
    if "WeightNorm" in kinds:
        return "weight_norm"
    return "spectral_norm" if "SpectralNorm" in kinds else None
