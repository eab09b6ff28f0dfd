"""Every network of the zoo becomes an ensemble in one call, and every member comes out plain."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import batchensemble as be
from batchensemble.ensembles import Ensemble
from specimen import Specimen, tensors
from zoo import ZOO

# Types are checked in other tests; here that would take longer than what is tested.
pytestmark = pytest.mark.usefixtures("as_users_run_it")

MEMBERS = 3
BATCH = 2
SPECIMENS = pytest.mark.parametrize("specimen", ZOO.values(), ids=ZOO.keys())


def run(specimen: Specimen, network: nn.Module, batch: int = BATCH) -> list[Tensor]:
    """Return all tensors that a network, or an ensemble, makes of some examples."""
    positional, keywords = specimen.inputs(batch)
    return list(tensors(network(*positional, **keywords)))


def batch_first(specimen: Specimen, network: nn.Module, batch: int = BATCH) -> list[Tensor]:
    """Return the outputs with the batch as the first axis, found by trying another size."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    shapes = [[output.shape for output in run(specimen, network, size)] for size in (2, 3)]
    for module, mode in modes.items():
        module.training = mode
    outputs = run(specimen, network, batch)
    axes = [
        next(axis for axis in range(len(two)) if two[axis] != three[axis])
        for two, three in zip(*shapes, strict=True)
    ]
    return [output.movedim(axis, 0) for output, axis in zip(outputs, axes, strict=True)]


def made(specimen: Specimen) -> nn.Module:
    torch.manual_seed(0)
    return specimen.make()


def assert_members_match(specimen: Specimen, model: Ensemble) -> None:
    """Compare each member's column with the plain network that it is, in whatever mode."""
    together = run(specimen, model)
    for index in range(model.members):
        alone = batch_first(specimen, model.member(index))
        for column, expected in zip(together, alone, strict=True):
            assert column.shape == (BATCH, model.members, *expected.shape[1:])
            size = expected.detach().abs().max().item()
            torch.testing.assert_close(column[:, index], expected, rtol=0, atol=1e-9 * size)


def is_random(specimen: Specimen, network: nn.Module) -> bool:
    """Tell whether a network draws random numbers in training."""
    with torch.no_grad():
        first, *others = (run(specimen, network) for _ in range(6))
    return not all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def used_parameters(specimen: Specimen, model: Ensemble) -> set[nn.Parameter]:
    """Make gradients, and return the parameters of all modules that took part."""
    called: set[nn.Module] = set()
    handles = [
        module.register_forward_hook(lambda module, *_: called.add(module))
        for module in model.modules()
    ]
    sum(output.square().sum() for output in run(specimen, model, 3)).backward()
    for handle in handles:
        handle.remove()
    return {parameter for module in called for parameter in module.parameters(recurse=False)}


def shake(network: nn.Module) -> None:
    """Give a network weights of its own, also where it has no way to draw them anew."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 0.2 * torch.randn_like(parameter))


@SPECIMENS
def test_identical_members_are_the_network_itself(specimen: Specimen) -> None:
    network = made(specimen).eval()
    model = be.BatchEnsemble(network, MEMBERS, init="ones", **specimen.options)
    assert not model.training
    for column, expected in zip(run(specimen, model), batch_first(specimen, network), strict=True):
        size = expected.detach().abs().max().item()
        for index in range(MEMBERS):
            torch.testing.assert_close(column[:, index], expected, rtol=0, atol=1e-9 * size)


@SPECIMENS
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"init": "normal", "std": 0.2}, id="multiplicative"),
        # Every layer is tested in this mode too; all networks are where there is time.
        pytest.param(
            {"mode": "additive", "rank": 2, "bias": "shared"},
            id="additive",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_each_member_is_a_plain_network_of_the_same_class(
    specimen: Specimen, options: dict[str, Any]
) -> None:
    network = made(specimen).eval()
    model = be.BatchEnsemble(network, MEMBERS, **options, **specimen.options)
    member = model.member(1)
    assert [type(module) for module in member.modules()] == [
        type(module) for module in network.modules()
    ]
    assert list(member.state_dict()) == list(network.state_dict())
    assert_members_match(specimen, model)


@SPECIMENS
def test_members_train_together_as_each_would_alone(specimen: Specimen) -> None:
    network = made(specimen)
    assert network.training
    if not is_random(specimen, network):
        model = be.BatchEnsemble(network, MEMBERS, init="normal", std=0.2, **specimen.options)
        assert model.training
        assert_members_match(specimen, model)
    model = be.BatchEnsemble(network, MEMBERS, **specimen.options)
    groups = {group["name"]: group["params"] for group in model.parameter_groups(lr=1e-3)}
    before = [fast.detach().clone() for fast in groups["fast"]]
    used = used_parameters(specimen, model)
    torch.optim.Adam(groups["fast"]).step()
    for fast, old in zip(groups["fast"], before, strict=True):
        moved = (fast != old).flatten(1).any(1)
        # A member that sends no example to an expert does not train it.
        enough = moved.any() if "one_by_one" in specimen.options else moved.all()
        assert enough == (fast in used)
    assert sum(fast in used for fast in groups["fast"]) >= len(groups["fast"]) - 2


@SPECIMENS
def test_a_deep_ensemble_trains_all_its_members_in_one_go(specimen: Specimen) -> None:
    network = made(specimen)
    options = {
        key: specimen.options[key] for key in ("batch_axis", "untiled") if key in specimen.options
    }
    model = be.DeepEnsemble(network, MEMBERS, reset=shake, **options)
    assert model.report().parameters == MEMBERS * sum(p.numel() for p in network.parameters())
    sum(output.square().sum() for output in run(specimen, model, 3)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert_members_match(specimen, model.eval())


@SPECIMENS
def test_its_report_adds_up(specimen: Specimen) -> None:
    network = made(specimen)
    report = be.BatchEnsemble(network, MEMBERS, **specimen.options).report()
    total = sum(row.shared + MEMBERS * row.per_member for row in report)
    assert total == report.parameters
    assert report.overhead == total / sum(p.numel() for p in network.parameters()) - 1
    assert all(row.reason for row in report if row.sharing == "shared")
