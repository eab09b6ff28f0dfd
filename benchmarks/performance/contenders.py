"""The layers that are timed beside each other: plain, ours, other libraries', and by hand.

Of tabm, torch-uncertainty and probly the one file that holds the layers is loaded, from wherever it
is found, without the rest of the package and what that asks for. ``FOLDER`` is looked into too:

    pip install --no-deps --ignore-requires-python --target runs/peer-layers \\
        tabm==0.0.3 rtdl-num-embeddings torch-uncertainty==0.13.0 einops probly==0.9.1
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchensemble.layers.convolution import RankOneConvolution
from batchensemble.layers.linear import RankOneLinear
from benchmarks.pages import ROOT
from benchmarks.performance.interleaved import Work

FOLDER = ROOT / "runs" / "peer-layers"
TABM = "tabm.py"
TORCH_UNCERTAINTY = "torch_uncertainty/layers/batch_ensemble.py"
PROBLY = "probly/layers/torch.py"


class Contender(Protocol):
    """What can be timed in training and in inference."""

    def train(self) -> Work:
        """Return what computes the output and the gradients of the input and all parameters."""

    def infer(self) -> Work:
        """Return what computes the output alone, in evaluation mode and without gradients."""


@dataclass(frozen=True)
class Layer:
    """A layer and its input.

    Attributes:
        module: the layer.
        x: the rows of all members, shaped as the layer wants them.
    """

    module: nn.Module
    x: Tensor

    def train(self) -> Work:
        """Return what computes the output and the gradients of the input and all parameters."""
        x = self.x.detach().clone().requires_grad_()
        leaves = [x, *self.module.parameters()]
        with torch.no_grad():
            gradient = torch.randn_like(self.module(x))
        return lambda: torch.autograd.grad(self.module(x), leaves, gradient)

    def infer(self) -> Work:
        """Return what computes the output alone, in evaluation mode and without gradients."""
        module, x = copy.deepcopy(self.module).eval(), self.x.detach()
        return without_gradients(module, x)

    def infer_frozen(self) -> Work:
        """Return the same of a frozen layer of ours."""
        module: Any = copy.deepcopy(self.module).eval()
        module.freeze()
        return without_gradients(module, self.x.detach())


@dataclass(frozen=True)
class Products:
    """The matrix products of a plain layer and nothing else, into memory that is there already.

    Attributes:
        rows: of one product.
        inputs: width of the weight.
        outputs: height of the weight.
        times: how often, one after the other.
        place: device and type.
    """

    rows: int
    inputs: int
    outputs: int
    times: int
    place: dict[str, Any]

    def train(self) -> Work:
        """Return what makes the products of the forward and the backward pass."""
        x, weight, y = self._matrices()
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)

        def run() -> None:
            for _ in range(self.times):
                torch.mm(x, weight.t(), out=y)
                torch.mm(y, weight, out=dx)
                torch.mm(y.t(), x, out=dweight)

        return run

    def infer(self) -> Work:
        """Return what makes the products of the forward pass."""
        x, weight, y = self._matrices()

        def run() -> None:
            for _ in range(self.times):
                torch.mm(x, weight.t(), out=y)

        return run

    def _matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randn(self.rows, self.inputs, **self.place)
        weight = torch.randn(self.outputs, self.inputs, **self.place)
        return x, weight, torch.empty(self.rows, self.outputs, **self.place)


class NotebookLayer(nn.Module):
    """The notebook's layer: ``y = x Wᵀ + b + (x · r_m) s_m``, with ``torch.einsum``.

    Shape:
        ``[batch, members, in]`` to ``[batch, members, out]``.
    """

    def __init__(self, layer: nn.Linear, members: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.bias = nn.Parameter(layer.bias.detach().clone())
        self.r = nn.Parameter(torch.randn(members, layer.in_features))
        self.s = nn.Parameter(torch.randn(members, layer.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's weight."""
        shared = torch.einsum("bmi,oi->bmo", x, self.weight) + self.bias
        bent = torch.einsum("bmi,mi->bm", x, self.r)
        return shared + torch.einsum("bm,mo->bmo", bent, self.s)


class Loop(nn.Module):
    """One plain layer a member, one after the other: ``[members, batch, ...]`` in and out."""

    def __init__(self, layer: nn.Module, members: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(members))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's layer."""
        return torch.stack([layer(rows) for layer, rows in zip(self.layers, x, strict=True)])


class StackedLinear(nn.Module):
    """One weight a member in one batched product: ``[members, batch, in]`` in and out."""

    def __init__(self, layer: nn.Linear, members: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().t().repeat(members, 1, 1))
        self.bias = nn.Parameter(layer.bias.detach().repeat(members, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's weight."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedConvolution(nn.Module):
    """One kernel a member, each a group of one convolution.

    Shape:
        ``[batch, members * channels, ...]`` in and out.
    """

    def __init__(self, layer: nn.Conv2d, members: int) -> None:
        super().__init__()
        self.members, self.padding = members, layer.padding
        self.weight = nn.Parameter(layer.weight.detach().repeat(members, 1, 1, 1))
        self.bias = nn.Parameter(layer.bias.detach().repeat(members))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's kernel."""
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.members)


def linear(
    batch: int, members: int, inputs: int, outputs: int, *, peers: bool = True, **place: Any
) -> dict[str, Contender]:
    """Return linear layers on the same rows; the rows of members come as within a network.

    Args:
        batch: rows of a member.
        members: how many.
        inputs: features in.
        outputs: features out.
        peers: whether to add all besides the plain layer and ours.
        place: device and type.
    """
    plain = nn.Linear(inputs, outputs)
    by_member = torch.randn(members, batch, inputs, **place)
    rows, by_example = by_member.flatten(0, 1), by_member.transpose(0, 1).contiguous()
    found = _ours(RankOneLinear, plain, members, rows, by_member)
    if peers:
        if module := peer(TABM):
            theirs = module.LinearBatchEnsemble(
                inputs, outputs, k=members, scaling_init="random-signs"
            )
            found["tabm"] = Layer(theirs, by_example)
        if module := peer(TORCH_UNCERTAINTY):
            found["torch-uncertainty"] = Layer(module.BatchLinear.from_linear(plain, members), rows)
        if module := peer(PROBLY):
            found["probly"] = Layer(module.BatchEnsembleLinear(plain, members), rows)
        found["einsum"] = Layer(NotebookLayer(plain, members), by_example)
        found["loop"] = Layer(Loop(plain, members), by_member)
        found["stacked"] = Layer(StackedLinear(plain, members), by_member)
    _move(found, place)
    return {**found, "products": Products(members * batch, inputs, outputs, 1, place)}


def convolution(
    batch: int, members: int, channels: int, size: int, *, peers: bool = True, **place: Any
) -> dict[str, Contender]:
    """Return convolutions of 3 x 3 on the same rows; arguments as those of :func:`linear`.

    The matrix products are those with as many multiply-adds, for one member after the other.
    """
    plain = nn.Conv2d(channels, channels, 3, padding=1)
    rows = torch.randn(members * batch, channels, size, size, **place)
    by_member = rows.unflatten(0, (members, batch))
    found = _ours(RankOneConvolution, plain, members, rows, rows)
    if peers:
        if module := peer(TORCH_UNCERTAINTY):
            theirs = module.BatchConv2d(channels, channels, 3, members, padding=1)
            found["torch-uncertainty"] = Layer(theirs, rows)
        if module := peer(PROBLY):
            found["probly"] = Layer(module.BatchEnsembleConv2d(plain, members), rows)
        found["loop"] = Layer(Loop(plain, members), by_member)
        side_by_side = by_member.transpose(0, 1).flatten(1, 2).contiguous()
        found["stacked"] = Layer(StackedConvolution(plain, members), side_by_side)
    _move(found, place)
    products = Products(batch * size * size, 9 * channels, channels, members, place)
    return {**found, "products": products}


def _ours(
    twin: Callable[..., nn.Module], plain: nn.Module, members: int, rows: Tensor, x: Tensor
) -> dict[str, Contender]:
    """Return the plain layer and our two modes of it."""
    return {
        "plain": Layer(plain, rows),
        "ours": Layer(twin(copy.deepcopy(plain), members), x),
        "additive": Layer(twin(copy.deepcopy(plain), members, mode="additive"), x),
    }


def _move(found: dict[str, Contender], place: dict[str, Any]) -> None:
    for contender in found.values():
        assert isinstance(contender, Layer)
        contender.module.to(**place)


def without_gradients(module: Callable[[Tensor], object], x: Tensor) -> Work:
    """Return what runs a module on ``x`` without gradients."""

    def run() -> object:
        with torch.no_grad():
            return module(x)

    return run


@functools.cache
def peer(file: str) -> ModuleType | None:
    """Return the module in the first ``file`` that is found, or ``None`` if it is not there.

    A file of a package is run without the package's own ``__init__``, which imports far more than
    the layers need.
    """
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    paths = (Path(folder) / file for folder in sys.path)
    path = next((each for each in paths if each.exists()), None)
    if path is None:
        return None
    name = "peer_" + path.relative_to(path.parents[file.count("/")]).with_suffix("").as_posix()
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
