"""Gradient clipping member by member: one that explodes does not scale the others' away."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchensemble.ensembles.conversion.convert import twins
from batchensemble.layers import Independent
from batchensemble.layers.modes import preserve_buffers

# A member whose factor is below this share of the others' is taken out of what they share.
ALONE = 0.5


class MemberClipping:
    """Limits the norm of each member's gradient (Pascanu et al. 2013, arXiv 1211.5063).

    What a member owns is scaled to the limit by itself. What all share gets the sum of the members'
    gradients, which is limited to as many times the limit as there are members. Where one member's
    gradient is far beyond the others', all are taken again with that member's losses scaled down,
    so that it does not drown theirs: a second backward pass, in such steps alone.

    Args:
        network: a converted network.
        members: how many (M).
        limit: the largest norm of what a member owns.
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

    def __call__(self, again: Callable[[Tensor], None]) -> Float[Tensor, "members"]:
        """Clip the gradients in place.

        Args:
            again: takes the gradients again, with each member's losses times a factor.

        Returns:
            The norms of what the members own, before.
        """
        before = norms = self.norms()
        factors = self._factors(norms)
        if self.members > 1 and self.shared and factors.min() < ALONE * factors.max():
            with preserve_buffers(self.network):
                self.network.zero_grad()
                again(factors / factors.max())
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
        """Return the norm of the gradient of what each member owns; 0 where it owns nothing."""
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
