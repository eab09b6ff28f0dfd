"""Every network of the zoo is converted and trained on torch's ``meta`` device.

It holds shapes and no numbers, and refuses to mix with tensors of another device: what passes here
makes no tensor on the CPU by mistake, as near to a GPU as a machine without one comes.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import batchensemble as be
from batchensemble.core.pytree import map_leaves
from batchensemble.ensembles import Ensemble
from specimen import Specimen, tensors
from zoo import ZOO

pytestmark = pytest.mark.usefixtures("as_users_run_it")

MEMBERS = 3
BATCH = 2
# Networks that do not run on meta themselves, and what torch says of them.
READS_NUMBERS = "item.. cannot be called on meta tensors"
NOT_ON_META = {
    **dict.fromkeys(("gpt2", "bert", "roberta", "distilbert", "t5", "llama"), READS_NUMBERS),
    "transformer": READS_NUMBERS,
    "packed_lstm": "'lengths' argument should be a 1D CPU int64 tensor",
    "mixture_of_experts": "torch.nonzero",
}
LARGE = ("mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2", "lraspp")
ABLE = [each for name, each in ZOO.items() if name not in NOT_ON_META]
SPECIMENS = pytest.mark.parametrize(
    "specimen",
    [
        pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.name in LARGE))
        for each in ABLE
    ],
)


# Where there are no numbers, nobody can look which layers are no members' own.
NAMED = {"nano_gpt": {"exclude": ["positions"]}}


def on_meta(specimen: Specimen) -> tuple[nn.Module, Any, Any]:
    """Return a network on meta, and what it is called with."""
    torch.manual_seed(0)
    network = specimen.make().to("meta")
    moved = map_leaves(
        lambda _, leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf,
        specimen.inputs(BATCH),
    )
    return network, *moved


def trained(network: nn.Module, positional: Any, keywords: Any) -> list[Tensor]:
    """Return the outputs, all tensors of it and of the gradients being on meta."""
    outputs = list(tensors(network(*positional, **keywords)))
    sum(output.square().sum() for output in outputs).backward()
    assert all(output.is_meta for output in outputs)
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is None or gradient.is_meta for gradient in gradients)
    assert sum(gradient is not None for gradient in gradients) >= len(gradients) - 4
    return outputs


def assert_trains_on_meta(specimen: Specimen, model: Ensemble, arguments: Any) -> None:
    assert all(each.is_meta for each in (*model.parameters(), *model.buffers()))
    together = trained(model, *arguments)
    member = model.member(1)
    assert all(each.is_meta for each in (*member.parameters(), *member.buffers()))
    with torch.no_grad():
        plain = tensors(member(*arguments[0], **arguments[1]))
    for output, alone in zip(together, plain, strict=True):
        assert output.shape[:2] == (BATCH, MEMBERS)
        assert output.numel() == MEMBERS * alone.numel()


@SPECIMENS
def test_a_batch_ensemble_trains_on_meta(specimen: Specimen) -> None:
    network, *arguments = on_meta(specimen)
    model = be.BatchEnsemble(
        network, MEMBERS, **{**specimen.options, **NAMED.get(specimen.name, {})}
    )
    assert_trains_on_meta(specimen, model, arguments)


@pytest.mark.slow
@SPECIMENS
def test_a_deep_ensemble_trains_on_meta(specimen: Specimen) -> None:
    network, *arguments = on_meta(specimen)
    names = {"batch_axis", "untiled"} & specimen.options.keys()
    options = {name: specimen.options[name] for name in names}
    model = be.DeepEnsemble(network, MEMBERS, reset=lambda network: None, **options)
    assert_trains_on_meta(specimen, model, arguments)


@pytest.mark.parametrize(("name", "reason"), NOT_ON_META.items(), ids=NOT_ON_META.keys())
def test_what_does_not_run_on_meta_does_not_alone(name: str, reason: str) -> None:
    network, positional, keywords = on_meta(ZOO[name])
    with pytest.raises((RuntimeError, NotImplementedError), match=reason):
        network(*positional, **keywords)
