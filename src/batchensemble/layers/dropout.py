"""Dropout on the CPU in half of torch's time: one random byte an element instead of a float."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from batchensemble.layers.rank_one.forward import is_transformed


class ByteDropout(nn.Dropout):
    """``nn.Dropout`` whose probability is one of 256 on the CPU, where drawing takes the time.

    torch draws one float an element there. Here one random byte an element says what is dropped,
    eight of them a draw; so ``p`` counts to the nearest 256th, and the outputs are scaled by what
    is then really kept. Everywhere else, as on a GPU and under a compiler, it is ``nn.Dropout``.

    Shape:
        any shape to the same.

    Example:
        >>> x = torch.ones(1_000)
        >>> dropped = ByteDropout(0.25)(x)
        >>> dropped.unique().tolist(), ByteDropout(0.25).eval()(x) is x
        ([0.0, 1.3333333730697632], True)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training mode."""
        if not self.training or self.p == 0:
            return x
        dropped = round(256 * self.p)  # of 256 bytes
        if not 0 < dropped < 256 or x.device.type != "cpu" or self.inplace or is_transformed():
            return super().forward(x)
        count = x.numel()
        words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[:count].view(x.shape) >= dropped
        return x * kept.to(x.dtype).mul_(256 / (256 - dropped))
