"""The ways to fine-tune one pretrained network that are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

import batchensemble as be

MEMBERS = 4
RANK = 8


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        title: of its row.
        make: what is trained, of the pretrained network and the name of its head.
        lr: learning rate of AdamW.
        separate: how many such models are trained apart and averaged.
        ours: whether it is one of this library's.
        batches: what the members see of a batch, see :func:`batchensemble.fit`.
    """

    title: str
    make: Callable[[nn.Module, str], be.Ensemble]
    lr: float
    separate: int = 1
    ours: bool = False
    batches: Literal["shared", "independent"] | None = None


def _full(network: nn.Module, head: str) -> be.Ensemble:
    return be.DeepEnsemble(network, 1, reset=[head])


def _head(network: nn.Module, head: str) -> be.Ensemble:
    return _heads(network, head, 1)


def _heads(network: nn.Module, head: str, members: int = MEMBERS) -> be.Ensemble:
    model = be.BatchEnsemble(network, members, include=[], independent=[head], branch_at=head)
    return model.train_only("heads")


def _lora(network: nn.Module, head: str, members: int = 1) -> be.Ensemble:
    return be.adapt(network, members, method="lora", rank=RANK, heads=[head])


def _lora_ensemble(network: nn.Module, head: str) -> be.Ensemble:
    return _lora(network, head, MEMBERS)


def _multiplicative(network: nn.Module, head: str) -> be.Ensemble:
    return be.adapt(network, MEMBERS, heads=[head])


def _deep(network: nn.Module, head: str) -> be.Ensemble:
    return be.DeepEnsemble(network, MEMBERS, reset=[head])


METHODS = {
    "head": Method("frozen, one head", _head, 1e-2),
    "heads": Method("frozen, 4 heads", _heads, 1e-2),
    "full": Method("full fine-tuning", _full, 1e-4),
    "lora": Method("LoRA", _lora, 1e-3),
    "multiplicative": Method("ours, multiplicative", _multiplicative, 3e-3, ours=True),
    "own_order": Method(
        "ours, multiplicative, each member its order",
        _multiplicative,
        3e-3,
        ours=True,
        batches="independent",
    ),
    "ours_lora": Method("ours, lora", _lora_ensemble, 1e-3, ours=True),
    "loras": Method("4 LoRAs", _lora, 1e-3, separate=MEMBERS),
    "deep": Method("deep ensemble of 4 full", _deep, 1e-4),
}
SINGLE = ("head", "full", "lora")


def trained(model: be.Ensemble) -> int:
    """Return the number of parameters that train."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def saved_bytes(model: be.Ensemble) -> int:
    """Return what an adapter takes, or where none was adapted, the bytes of what trains."""
    if model.base is None:
        parameters = (each for each in model.parameters() if each.requires_grad)
        return sum(each.numel() * each.element_size() for each in parameters)
    with tempfile.TemporaryDirectory() as folder:
        be.save_adapter(model, folder)
        return sum(path.stat().st_size for path in Path(folder).iterdir())
