"""The registry knows all of torch's layers with weights, and users add their own."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import batchensemble as be
from batchensemble.layers import Independent, RankOne, registry

NOT_LAYERS = {
    "Module",
    "AdaptiveLogSoftmaxWithLoss",  # a loss made of linear layers, which are converted
    "Container",
    "ParameterDict",
    "ParameterList",
}


class Quadratic(nn.Module):
    """A layer of a user's own, with a matrix and a bias."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(outputs, inputs))
        self.offset = nn.Parameter(torch.randn(outputs))

    def reset_parameters(self):
        nn.init.normal_(self.matrix)

    def forward(self, x):
        return x.square() @ self.matrix.T + self.offset


@pytest.fixture
def own_twin():
    @be.twin(Quadratic)
    class RankOneQuadratic(RankOne):
        """Bends the matrix; the offset is each member's own."""

        matrices = ("matrix",)

    yield RankOneQuadratic
    del registry.RANK_ONE[Quadratic]


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning"
)  # of torch, about old layers
def test_every_layer_of_torch_with_weights_has_a_twin():
    classes = {
        name: kind
        for name, kind in vars(nn).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and not name.startswith("Lazy")
    }
    arguments = {"ConvTranspose": (4, 4, 3), "Conv": (4, 4, 3), "Bilinear": (4, 4, 4)}
    without = []
    for name, kind in classes.items():
        if name in NOT_LAYERS:
            continue
        given = next((a for start, a in arguments.items() if name.startswith(start)), None)
        for attempt in (given, (), (4,), (4, 4), (4, 2)):
            try:
                layer = kind(*attempt) if attempt is not None else None
            except (TypeError, ValueError, AssertionError):
                continue
            if layer is not None:
                break
        else:
            continue
        needs = registry.needs_twin(layer)
        if needs and registry.find(layer)[0] is None:
            without.append(name)
    assert without == []


def test_a_users_layer_is_bent_by_its_registered_twin(own_twin):
    model = be.BatchEnsemble(nn.Sequential(Quadratic(4, 3), nn.Linear(3, 2)), 3, init="normal")
    model = model.double()
    assert type(model.network[0]) is own_twin
    member, x = model.member(1), torch.randn(5, 4).double()
    assert type(member[0]) is Quadratic
    r, s = model.network[0].matrix_r[1], model.network[0].matrix_s[1]
    torch.testing.assert_close(member[0].matrix, model.network[0].matrix * torch.outer(s, r))
    torch.testing.assert_close(model(x)[:, 1], member(x))
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_function_as_twin_is_called_with_the_options_by_name(own_twin):
    called = []

    @be.twin(Quadratic)
    def make(layer, members, *, mode, rank, batch_axis, **others):
        called.append((mode, rank, batch_axis, others["std"]))
        return own_twin(layer, members, mode=mode, rank=rank, batch_axis=batch_axis, **others)

    network = nn.Sequential(Quadratic(4, 3), nn.Linear(3, 2))
    model = be.BatchEnsemble(network, 3, mode="additive", rank=2, std=0.1)
    assert called == [("additive", 2, 0, 0.1)]
    assert type(model.network[0]) is own_twin


def test_an_unknown_layer_stays_shared_and_says_so():
    model = be.BatchEnsemble(nn.Sequential(Quadratic(4, 3), nn.Linear(3, 2)), 3)
    assert type(model.network[0]) is Quadratic
    row = model.report()[0]
    assert row.sharing == "shared"
    assert row.reason == "held by the module itself: matrix, offset"


def test_a_stacked_twin_can_be_registered_too():
    class Copies(Independent):
        """A user's own way to run all members' layers."""

    be.twin(Quadratic, sharing="independent")(Copies)
    try:
        network = nn.Sequential(Quadratic(4, 3), nn.Linear(3, 2))
        model = be.BatchEnsemble(network, 3, independent=["0"])
    finally:
        del registry.INDEPENDENT[Quadratic]
    assert type(model.network[0]) is Copies
    assert model(torch.zeros(5, 4)).shape == (5, 3, 2)


def test_a_sharing_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="sharing must be one of rank_one, independent"):
        be.twin(Quadratic, sharing="both")


def with_type(dtype):
    layer = nn.Linear(3, 2)
    layer.weight = nn.Parameter(torch.zeros(2, 3, dtype=dtype), requires_grad=False)
    return layer


REFUSED = {
    "parametrised": (lambda: parametrizations.weight_norm(nn.Linear(3, 2)), "parametrization"),
    "spectral": (lambda: parametrizations.spectral_norm(nn.Linear(3, 2)), "parametrization"),
    "integer": (lambda: with_type(torch.int8), r"holds weight of type torch\.int8"),
    "complex": (lambda: with_type(torch.complex64), r"holds weight of type torch\.complex64"),
    "max_norm": (lambda: nn.Embedding(3, 2, max_norm=1.0), "has max_norm set"),
    "frequency": (
        lambda: nn.Embedding(3, 2, scale_grad_by_freq=True),
        "has scale_grad_by_freq set",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_bent_is_named_with_the_way_out(make, sentence):
    network = nn.Sequential(nn.Linear(3, 3), make())
    with pytest.raises(ValueError, match=rf"'1' is a .*{sentence}.* independent= .* exclude="):
        be.BatchEnsemble(network, 3)
    model = be.BatchEnsemble(network, 3, exclude=["1"])
    assert model.member(0).get_submodule("1").__class__ is network[1].__class__


def test_layers_that_wait_for_their_shapes_are_refused_until_they_have_them():
    network = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    for make in (be.BatchEnsemble, be.DeepEnsemble):
        with pytest.raises(ValueError, match=r"'0' is a LazyLinear.* run the network once"):
            make(network, 3)
    network(torch.zeros(1, 4))
    assert be.BatchEnsemble(network, 3)(torch.zeros(5, 4)).shape == (5, 3, 2)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_a_hook_makes_are_refused_with_the_way_out():
    network = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"'0' .*parametrizations\.weight_norm instead"):
        be.BatchEnsemble(network, 3)


class Standardised(nn.Conv2d):
    """Overrides a part of the forward only."""

    def _conv_forward(self, input, weight, bias):
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std(
            (1, 2, 3), keepdim=True
        )
        return super()._conv_forward(input, weight, bias)


def test_a_subclass_that_overrides_a_part_runs_through_it():
    model = be.BatchEnsemble(nn.Sequential(Standardised(3, 4, 3)), 3, init="normal").double()
    x = torch.randn(5, 3, 6, 6).double()
    for index in range(3):
        torch.testing.assert_close(model(x)[:, index], model.member(index)(x))


def test_a_forward_put_on_one_object_is_refused():
    layer = nn.Linear(3, 2)
    layer.forward = lambda x: x
    with pytest.raises(ValueError, match="'0' is a Linear that has a forward that was set on"):
        be.BatchEnsemble(nn.Sequential(layer), 3)
