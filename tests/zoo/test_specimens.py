"""The zoo itself: its networks run, and mix no examples but where they train with batch norm."""

from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from specimen import Specimen, tensors
from zoo import CAGES, ZOO

SPECIMENS = pytest.mark.parametrize("specimen", ZOO.values(), ids=ZOO.keys())


def run(specimen: Specimen, network: nn.Module, batch: int) -> list[Tensor]:
    """Return all tensors that ``network`` makes of ``batch`` examples."""
    positional, keywords = specimen.inputs(batch)
    return list(tensors(network(*positional, **keywords)))


def test_every_name_is_there_once() -> None:
    assert len(ZOO) == sum(len(cage.SPECIMENS) for cage in CAGES) >= 27


@SPECIMENS
def test_an_example_knows_nothing_of_the_others(specimen: Specimen) -> None:
    torch.manual_seed(0)
    network = specimen.make().eval()
    differs = False
    for two, three in zip(run(specimen, network, 2), run(specimen, network, 3), strict=True):
        (axis,) = [i for i in range(two.ndim) if two.shape[i] != three.shape[i]]
        assert two.dtype == torch.float64
        assert (two.shape[axis], three.shape[axis]) == (2, 3)
        torch.testing.assert_close(three.narrow(axis, 0, 2), two, rtol=1e-9, atol=1e-10)
        distance = (two.select(axis, 0) - two.select(axis, 1)).abs().max()
        differs |= bool(distance > 1e-3 * two.abs().max())
    assert differs


@SPECIMENS
def test_every_weight_is_trained(specimen: Specimen) -> None:
    torch.manual_seed(0)
    network = specimen.make()
    assert network.training
    outputs = run(specimen, network, 3)
    sum(output.square().sum() for output in outputs).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


@SPECIMENS
def test_its_options_name_what_is_there(specimen: Specimen) -> None:
    network = specimen.make()
    modules = dict(network.named_modules())
    options: dict[str, Any] = specimen.options
    assert bool(options) == bool(specimen.because)
    assert set(options) <= {"batch_axis", "untiled", "exclude", "one_by_one"}
    assert {*options.get("exclude", ()), *options.get("one_by_one", ())} <= set(modules)
    assert {*options.get("untiled", ())} <= set(signature(network.forward).parameters)
