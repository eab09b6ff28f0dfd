"""Six small networks of six kinds, with random weights that stand in for trained ones.

>>> net, x = build("mlp")
>>> net(x).shape
torch.Size([8, 3])

Sizes avoid 4, the number of members in ``libraries.py``, so that a tensor with an axis of 4 belongs
to the members.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 3
WORDS = 50


def build(name: str, batch: int = 8) -> tuple[nn.Module, Tensor]:
    """Return one of ``NETWORKS`` in evaluation mode and inputs for it, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, make, make_inputs = NETWORKS[name]
        net = make()
        _pretend_trained(net)
        return net.eval(), make_inputs(batch)


def _pretend_trained(net: nn.Module) -> None:
    """Move what starts as constants, such as biases and norms, so that losing it shows."""
    with torch.no_grad():
        for tensor in net.parameters():
            if tensor.dim() == 1:
                tensor.add_(0.1 * torch.randn_like(tensor))
        for name, tensor in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                tensor.add_(0.3 * torch.rand_like(tensor))


def multilayer_perceptron() -> nn.Module:
    """Return a chain of linear layers."""
    return nn.Sequential(
        nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )


class Block(nn.Module):
    """Two convolutions with batch norm, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.around: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.around = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.around(x))


class ResNet(nn.Module):
    """A residual network for small images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 16, stride=2), Block(16, 32, stride=2))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``[batch, 3, height, width]``."""
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class Transformer(nn.Module):
    """PyTorch's own transformer encoder on sequences of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of sequences ``[batch, time, 6]``."""
        return self.head(self.encoder(self.embed(x)).mean(1))


class Bert(nn.Module):
    """A tiny BERT of the transformers library that returns its logits only."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=24,
            num_labels=CLASSES,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, words: Tensor) -> Tensor:
        """Return the logits of word numbers ``[batch, time]``."""
        return self.bert(input_ids=words).logits


class UNet(nn.Module):
    """Down by convolutions, up by transposed ones, with the finer maps joined on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.down1 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.join2 = nn.Conv2d(32, 16, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join1 = nn.Conv2d(16, 8, 3, padding=1)
        self.leave = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each pixel of ``[batch, 3, height, width]``."""
        fine = F.relu(self.enter(x))
        middle = F.relu(self.down1(fine))
        coarse = F.relu(self.down2(middle))
        middle = F.relu(self.join2(torch.cat([self.up2(coarse), middle], 1)))
        fine = F.relu(self.join1(torch.cat([self.up1(middle), fine], 1)))
        return self.leave(fine)


class Lstm(nn.Module):
    """Words to vectors, an LSTM over them, and a class from its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 12)
        self.lstm = nn.LSTM(12, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        """Return the logits of word numbers ``[batch, time]``."""
        states, _ = self.lstm(self.words(words))
        return self.head(states[:, -1])


def _vectors(*shape: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, *shape)


def _words(batch: int) -> Tensor:
    return torch.randint(WORDS, (batch, 11))


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "mlp": ("MLP", multilayer_perceptron, _vectors(10)),
    "resnet": ("ResNet, batch norm", ResNet, _vectors(3, 16, 16)),
    "transformer": ("nn.TransformerEncoder", Transformer, _vectors(11, 6)),
    "bert": ("BERT of transformers", Bert, _words),
    "unet": ("U-Net", UNet, _vectors(3, 16, 16)),
    "lstm": ("LSTM classifier", Lstm, _words),
}
