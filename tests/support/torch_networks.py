"""Plain networks that go through PyTorch's tools, for the tests and for a script of theirs."""

import torch
from torch import nn


class Convolutional(nn.Module):
    """A plain network with convolutions, norms and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        hidden = self.stem(x)
        return self.head((hidden + self.block(hidden)).mean((2, 3)))


class Attentive(nn.Module):
    """A Transformer with a table of positions."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(11, 8), nn.Embedding(16, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, numbers):
        positions = torch.arange(numbers.shape[1], device=numbers.device).unsqueeze(0)
        return self.head(self.encoder(self.words(numbers) + self.positions(positions)).mean(1))


def mlp():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 5))


NETWORKS = {
    "mlp": (mlp, lambda batch: torch.randn(batch, 4)),
    "convolutional": (Convolutional, lambda batch: torch.randn(batch, 3, 6, 6)),
    "attentive": (Attentive, lambda batch: torch.randint(11, (batch, 7))),
}
MODES = {"multiplicative": {"init": "normal"}, "additive": {"mode": "additive", "rank": 2}}


def loss(outputs):
    """Return a loss that every output has a part in."""
    return outputs.float().square().mean(0).sum()
