"""Networks of our own for tables, sets and graphs, and for several inputs and outputs at once."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specimen import Arguments, Specimen, floats, integers, normal, padding, settled


class MLP(nn.Sequential):
    """The network that everybody starts with."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32), nn.ReLU(),
            nn.Linear(32, 3),
        )  # fmt: skip


class HighwayBlock(nn.Module):
    """A gated step whose scale is a parameter of the block itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.step = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        return x + self.scale * torch.sigmoid(self.gate(hidden)) * F.silu(self.step(hidden))


class Highway(nn.Module):
    """Gated residual blocks, and a temperature without any axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.blocks = nn.ModuleList([HighwayBlock(16) for _ in range(3)])
        self.head = nn.Linear(16, 3)
        self.temperature = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x) / self.temperature


class CosineLinear(nn.Linear):
    """A linear layer that does something else with its weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))


class CosineClassifier(nn.Module):
    """Classes by the angle to a direction."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh())
        self.head = CosineLinear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class BilinearMatch(nn.Module):
    """A query and a document, matched by ``nn.Bilinear``."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(5, 8)
        self.match = nn.Bilinear(8, 6, 4)

    def forward(self, query: Tensor, document: Tensor) -> Tensor:
        return self.match(torch.tanh(self.query(query)), document)


class Bags(nn.Module):
    """Texts as bags of words, one table by the mean and one by weighted sums."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.EmbeddingBag(20, 8, mode="mean", padding_idx=0)
        self.sum = nn.EmbeddingBag(20, 8, mode="sum")
        self.head = nn.Linear(16, 3)

    def forward(self, words: Tensor, weights: Tensor) -> Tensor:
        bags = [self.mean(words), self.sum(words, per_sample_weights=weights)]
        return self.head(torch.cat(bags, dim=1))


class Mixture(nn.Module):
    """Each example goes to its two best experts; how many come to one depends on the data."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(dim=1).topk(2, dim=1)
        result = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            mask = chosen == index
            rows = mask.any(dim=1).nonzero().squeeze(1)
            result = result.index_add(0, rows, weights[mask].unsqueeze(1) * expert(x[rows]))
        return result


class MixtureOfExperts(nn.Module):
    """A sparse mixture of experts between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 12)
        self.mixture = Mixture(12, 4)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.mixture(x))


class GraphNetwork(nn.Module):
    """Messages along the edges of one graph that all examples share."""

    def __init__(self) -> None:
        super().__init__()
        self.message = nn.Linear(8, 12)
        self.update = nn.Linear(16, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        for _ in range(2):
            ends = torch.cat([nodes[:, edges[0]], nodes[:, edges[1]]], dim=2)
            messages = torch.relu(self.message(ends))
            received = nodes.new_zeros(*nodes.shape[:2], 12).index_add(1, edges[1], messages)
            nodes = nodes + torch.tanh(self.update(torch.cat([nodes, received], dim=2)))
        return self.head(nodes)


class PointNet(nn.Module):
    """Features of each point, their maximum, and batch norm over both kinds of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(
            nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 32, 1)
        )
        self.cloud = nn.Sequential(
            nn.Linear(32, 16), nn.BatchNorm1d(16, affine=False), nn.ReLU(), nn.Linear(16, 4)
        )

    def forward(self, clouds: Tensor) -> Tensor:
        return self.cloud(self.points(clouds).amax(dim=2))


class DeepSets(nn.Module):
    """A sum over the elements that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.element = nn.Sequential(nn.Linear(3, 16), nn.LeakyReLU(), nn.Linear(16, 16))
        self.whole = nn.Sequential(nn.RMSNorm(16), nn.Linear(16, 2))

    def forward(self, elements: Tensor, missing: Tensor) -> Tensor:
        return self.whole(self.element(elements).masked_fill(missing.unsqueeze(2), 0).sum(dim=1))


class Detector(nn.Module):
    """Picture, table and words in one dictionary, a nested dictionary out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                "picture": nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten()),
                "table": nn.Linear(5, 8),
                "words": nn.Embedding(10, 8),
            }
        )
        self.body = nn.Linear(4 * 4 * 4 + 8 + 8, 16)
        self.heads = nn.ModuleDict(
            {"kind": nn.Linear(16, 3), "centre": nn.Linear(16, 2), "size": nn.Linear(16, 2)}
        )

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        parts = {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}
        parts["words"] = parts["words"].mean(dim=1)
        hidden = torch.relu(self.body(torch.cat(list(parts.values()), dim=1)))
        box = {"centre": self.heads["centre"](hidden), "size": self.heads["size"](hidden).exp()}
        return {"kind": self.heads["kind"](hidden), "box": box}


@dataclass
class Normal:
    """What a regression with its own noise predicts."""

    mean: Tensor
    deviation: Tensor


class NoisyRegression(nn.Module):
    """One body, and two heads whose outputs come in a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Softplus())
        self.mean = nn.Linear(16, 1)
        self.deviation = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Normal:
        hidden = self.body(x)
        return Normal(self.mean(hidden).squeeze(1), F.softplus(self.deviation(hidden)).squeeze(1))


def query_and_document(batch: int) -> Arguments:
    return (normal(batch, 5), normal(batch, 6, argument=1)), {}


def words_and_weights(batch: int) -> Arguments:
    return (integers(batch, 0, 20, 5), normal(batch, 5, argument=1)), {}


def nodes_and_edges(batch: int) -> Arguments:
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    return (normal(batch, 5, 4), edges), {}


def elements_and_missing(batch: int) -> Arguments:
    return (normal(batch, 6, 3),), {"missing": padding(batch, 6)}


def picture_table_and_words(batch: int) -> Arguments:
    picture, table = normal(batch, 1, 6, 6), normal(batch, 5, argument=1)
    words = integers(batch, 0, 10, 4, argument=2)
    return ({"picture": picture, "table": table, "words": words},), {}


SPECIMENS = [
    Specimen("mlp", MLP, floats(6), "multilayer perceptron with dropout"),
    Specimen(
        "highway",
        Highway,
        floats(6),
        "gated residual blocks with layer norm, layer scale and a temperature of their own",
    ),
    Specimen(
        "cosine_classifier",
        settled(CosineClassifier, floats(6)),
        floats(6),
        "a subclass of Linear with its own forward, after batch norm over features",
    ),
    Specimen("bilinear", BilinearMatch, query_and_document, "nn.Bilinear of two inputs"),
    Specimen(
        "embedding_bag",
        Bags,
        words_and_weights,
        "nn.EmbeddingBag by the mean and by weighted sums",
    ),
    Specimen(
        "mixture_of_experts",
        MixtureOfExperts,
        floats(6),
        "each example routed to its two best of four experts",
        {"one_by_one": ["mixture"]},
        "how many examples an expert gets depends on the data, so members get different batches",
    ),
    Specimen(
        "graph",
        GraphNetwork,
        nodes_and_edges,
        "messages by index_add along the edges [2, edges] of one graph",
        {"untiled": ["edges"]},
        "the edges [2, edges] belong to all examples and would pass for a batch of two",
    ),
    Specimen(
        "point_net",
        settled(PointNet, floats(3, 10)),
        floats(3, 10),
        "PointNet: batch norm over [batch, channels, points] and over [batch, channels]",
    ),
    Specimen(
        "deep_sets",
        DeepSets,
        elements_and_missing,
        "DeepSets with a mask of missing elements and RMS norm",
    ),
    Specimen(
        "detector",
        Detector,
        picture_table_and_words,
        "picture, table and words in one dictionary, a nested dictionary out",
    ),
    Specimen(
        "noisy_regression",
        NoisyRegression,
        floats(6),
        "mean and deviation out, in a dataclass",
    ),
]
