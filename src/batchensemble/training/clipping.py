"""Gradient clipping for each member: one that explodes does not scale down the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchensemble.ensembles.conversion.convert import twins
from batchensemble.layers import Independent
from batchensemble.layers.modes import preserve_buffers

# A member whose factor is below this share of the others' is scaled down before they are added.
MEMBER_SHARE = 0.5


class MemberClipping:
    """Limits the norm of each member's gradient (Pascanu et al. 2013, arXiv 1211.5063).

    The gradient of a member's own weights is scaled to the limit. The gradient of shared weights,
    the sum over the members, is scaled to M times the limit. If the gradient of one member is far
    larger than the others', all gradients are computed again with its losses scaled down, so that
    it does not dominate the shared weights; that costs a second backward pass in such steps.

    Args:
        network: a converted network.
        members: number of members (M).
        limit: largest norm of the gradient of a member's own weights.
    """

    def __init__(self, network: nn.Module, members: int, limit: float) -> None:
        self.network, self.members, self.limit = network, members, limit
        self.stacked: list[nn.Parameter] = []  # the first axis is the members
        self.copied: list[list[nn.Parameter]] = [[] for _ in range(members)]
        for _, twin in twins(network):
            if isinstance(twin, Independent):
                for copied, module in zip(self.copied, twin.copies, strict=True):
                    copied.extend(module.parameters())
                continue
            for module in twin.modules():
                named = dict(module.named_parameters())
                own = getattr(module, "own", ())  # of twins alone
                self.stacked += [named[name] for name in own if name in named]
        owned = {*self.stacked, *(each for own in self.copied for each in own)}
        self.shared = [each for each in network.parameters() if each not in owned]
        self.device = next(network.parameters()).device

    def __call__(self, recompute: Callable[[Tensor], None]) -> Float[Tensor, "members"]:
        """Clip the gradients in place.

        Args:
            recompute: computes the gradients again, with each member's losses times a factor,
                ``[members]``.

        Returns:
            The norms of the gradients of the members' own weights, before clipping.
        """
        before = norms = self.norms()
        factors = self._factors(norms)
        if self.members > 1 and self.shared and factors.min() < MEMBER_SHARE * factors.max():
            with preserve_buffers(self.network):
                self.network.zero_grad()
                recompute(factors / factors.max())
            factors = self._factors(self.norms())
        for each in self.stacked:
            if each.grad is not None:
                each.grad.mul_(factors.to(each.grad).view(-1, *[1] * (each.dim() - 1)))
        for factor, own in zip(factors, self.copied, strict=True):
            for each in own:
                if each.grad is not None:
                    each.grad.mul_(factor.to(each.grad))
        if self.shared:
            nn.utils.clip_grad_norm_(self.shared, self.limit * self.members)
        return before

    def norms(self) -> Float[Tensor, "members"]:
        """Return the norm of the gradient of each member's own weights; 0 without own weights."""
        total = torch.zeros(self.members, device=self.device)
        for each in self.stacked:
            if each.grad is not None:
                total += each.grad.flatten(1).float().square().sum(1)
        for index, own in enumerate(self.copied):
            for each in own:
                if each.grad is not None:
                    total[index] += each.grad.float().square().sum()
        return total.sqrt()

    def _factors(self, norms: Tensor) -> Tensor:
        return (self.limit / (norms + 1e-12)).clamp(max=1.0)
