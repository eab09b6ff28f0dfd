"""An ensemble computes with weights of its own, or says which of them would not be trained."""

import copy
import functools
import warnings

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.copies import copied
from batchensemble.ensembles.conversion.unregistered import check_weights_registered
from batchensemble.layers import RankOne

# Of torch's own, for TorchScript and quantisation.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{what}")
    for what in ("torch.jit", "quantize", "quantization")
]

ENSEMBLES = {
    "single": be.Single,
    "batch": lambda network: be.BatchEnsemble(network, 3),
    "inplace": lambda network: be.BatchEnsemble(network, 3, inplace=True),
    "deep": lambda network: be.DeepEnsemble(network, 3),
    "stacked": lambda network: be.DeepEnsemble(network, 3, stacked=True),
    "branched": lambda network: be.BatchEnsemble(network, 3, branch_at="2"),
    "branched_deep": lambda network: be.DeepEnsemble(network, 3, branch_at="2"),
    "mimo": lambda network: be.MIMO(network, 3),
}
ALL = pytest.mark.parametrize("make", ENSEMBLES.values(), ids=ENSEMBLES.keys())
COPYING = pytest.mark.parametrize(
    "make",
    [make for kind, make in ENSEMBLES.items() if kind != "inplace"],
    ids=[kind for kind in ENSEMBLES if kind != "inplace"],
)


def network(middle):
    return nn.Sequential(nn.Linear(4, 8), middle, nn.Linear(8, 3))


def data():
    torch.manual_seed(0)
    return torch.randn(16, 4), torch.randint(3, (16,))


def fit(model):
    return be.fit(model, data(), epochs=1, progress=False)


class TestRefused:
    """By name, before anything is converted."""

    @ALL
    @pytest.mark.parametrize(
        "script",
        [torch.jit.script, lambda each: torch.jit.trace(each, torch.zeros(1, 8))],
        ids=["scripted", "traced"],
    )
    def test_torchscript(self, make, script):
        with pytest.raises(ValueError, match=r"'1' is a \w*Module, a module of TorchScript"):
            make(network(script(nn.Linear(8, 8))))

    @ALL
    def test_wrappers_that_know_the_weights(self, make):
        with pytest.raises(ValueError, match="'1' is a DataParallel, which keeps track"):
            make(network(nn.DataParallel(nn.Linear(8, 8))))

    def test_quantised_layers(self):
        def half():
            return torch.ao.quantization.quantize_dynamic(network(nn.ReLU()), {"2"})

        with pytest.raises(ValueError, match=r"'2' is a Linear whose weights are packed as whole"):
            be.BatchEnsemble(half(), 3)
        model = be.BatchEnsemble(half(), 3, exclude=["2"])
        with warnings.catch_warnings():
            # It measures the range of the whole batch, so members are mixed, if ever so little.
            warnings.filterwarnings("ignore", ".*the members run one after the other")
            assert model(torch.randn(5, 4)).shape == (5, 3, 3)
        with pytest.warns(UserWarning, match=r"'2' \(Linear\) has no reset_parameters"):
            be.DeepEnsemble(half(), 3)

    def test_what_was_compiled_already(self):
        plain = network(nn.ReLU())
        with pytest.raises(ValueError, match="'the network' is a OptimizedModule, compiled"):
            be.BatchEnsemble(torch.compile(plain), 3)
        plain[0] = torch.compile(plain[0])
        with pytest.raises(ValueError, match=r"is a OptimizedModule, compiled .* compile the ens"):
            be.BatchEnsemble(plain, 3)

    @COPYING
    def test_modules_that_copy_themselves_in_another_way(self, make):
        class Itself(nn.Linear):
            def __deepcopy__(self, memo):
                return self

        class Without(nn.Linear):
            def __getstate__(self):
                state = copy.copy(self.__dict__)
                state["_parameters"] = {"weight": self.weight, "bias": None}
                return state

        with pytest.raises(ValueError, match=r"'1.weight' is the same parameter, .* an? Itself"):
            make(network(Itself(8, 8)))
        with pytest.raises(ValueError, match=r"'1.bias' is not there in a copy .* a Without"):
            make(network(Without(8, 8)))
        frozen = Itself(8, 8).requires_grad_(False)
        assert copied(network(frozen))[1] is frozen  # a feature extractor that all may share

    def test_a_twin_that_loses_a_parameter(self):
        class Scale(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale, self.shift = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))

            def forward(self, x):
                return x * self.scale + self.shift

        @be.twin(Scale)
        class MemberScale(RankOne):
            def hold_tensors(self, layer):
                self.hold("scale", layer.scale, own=True)

        with pytest.raises(ValueError, match="MemberScale, the twin of '1', has lost its shift"):
            be.BatchEnsemble(network(Scale()), 3)


class Plain(nn.Module):
    """Two layers that are called as modules."""

    def __init__(self):
        super().__init__()
        self.hidden, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.keep()

    def keep(self):
        """Keep the layers in yet another way."""

    def forward(self, x):
        return self.last(self.hidden(x).relu())


class InAList(Plain):
    def keep(self):
        self.order = [self.hidden, nn.ReLU(), self.last]

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return x


class InATuple(Plain):
    def keep(self):
        self.pairs = ((self.hidden, True), (self.last, False))

    def forward(self, x):
        for layer, active in self.pairs:
            x = layer(x).relu() if active else layer(x)
        return x


class InADictionary(Plain):
    def keep(self):
        self.parts = {"body": {"first": self.hidden}, "head": [self.last]}

    def forward(self, x):
        return self.parts["head"][0](self.parts["body"]["first"](x).relu())


class Unregistered(Plain):
    def keep(self):
        self.__dict__["again"] = self.last

    def forward(self, x):
        return self.again(self.hidden(x).relu())


class Partial(Plain):
    def keep(self):
        self.head = functools.partial(self.last)

    def forward(self, x):
        return self.head(self.hidden(x).relu())


class BoundMethod(Plain):
    def keep(self):
        self.head = self.last.forward

    def forward(self, x):
        return self.head(self.hidden(x).relu())


@pytest.mark.parametrize(
    "kind", [InAList, InATuple, InADictionary, Unregistered, Partial, BoundMethod]
)
class TestKeptTwice:
    """What a network keeps besides its modules is what became of them."""

    def ensembles(self, kind):
        torch.manual_seed(0)
        makes = [
            lambda each: be.BatchEnsemble(each, 3),
            lambda each: be.BatchEnsemble(each, 3, inplace=True),
            lambda each: be.DeepEnsemble(each, 3),
            lambda each: be.DeepEnsemble(each, 3, stacked=True),
            lambda each: be.MIMO(each, 3),
        ]
        if kind is not BoundMethod:  # which no branch can see, since it is not called as a module
            makes.append(lambda each: be.DeepEnsemble(each, 3, branch_at="last"))
        for make in makes:
            model, expected = make(kind()), make(Plain())
            expected.load_state_dict(model.state_dict())
            yield model, expected

    def test_it_computes_as_if_kept_once(self, kind):
        x = torch.randn(5, 4)
        for model, expected in self.ensembles(kind):
            assert torch.equal(model(x), expected(x))
            for one, other in zip(model(x).unbind(1), expected(x).unbind(1), strict=True):
                assert torch.equal(one, other)
            for index in range(3):
                assert torch.equal(model.member(index)(x), expected.member(index)(x))

    def test_all_weights_are_trained(self, kind):
        for model, _ in self.ensembles(kind):
            model(torch.randn(5, 4)).square().sum().backward()
            assert all(parameter.grad is not None for parameter in model.parameters())


class Closure(Plain):
    def keep(self):
        self.head = lambda x: self.last(x)

    def forward(self, x):
        return self.head(self.hidden(x).relu())


class ClosureOverAWeight(Plain):
    def keep(self):
        weight = self.last.weight
        self.head = lambda x: x @ weight.t()

    def forward(self, x):
        return self.head(self.hidden(x).relu())


class TestFunctions:
    """A function is bound to the network that it was made in, and copies go on using that."""

    @pytest.mark.parametrize("kind", [Closure, ClosureOverAWeight])
    @pytest.mark.parametrize("make", [ENSEMBLES[each] for each in ("single", "batch", "deep")])
    def test_fit_refuses_before_anything_is_trained(self, kind, make):
        model = make(kind())
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=r"computes with the weights of 'last' .*a method"):
            fit(model)
        assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())

    def test_verify_refuses_too(self):
        model = be.BatchEnsemble(Closure(), 3)
        with pytest.raises(ValueError, match="computes with the weights of 'last'"):
            model.verify(torch.randn(5, 4))

    def test_a_function_that_uses_no_weights_is_fine(self):
        class Scaling(Plain):
            def keep(self):
                self.scale = lambda x: x * 2

            def forward(self, x):
                return super().forward(self.scale(x))

        fit(be.BatchEnsemble(Scaling(), 3))

    def test_a_method_that_is_kept_is_copied_with_its_network(self):
        class Method(Plain):
            def keep(self):
                self.way = self.compute

            def compute(self, x):
                return self.last(self.hidden(x).relu())

            def forward(self, x):
                return self.way(x)

        model = be.BatchEnsemble(Method(), 3)
        fit(model)
        model(torch.randn(5, 4)).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


class Hidden(Plain):
    """Keeps weights where torch does not find them."""

    def keep(self):
        self.scales = [nn.Parameter(torch.ones(4))]

    def forward(self, x):
        return super().forward(x * self.scales[0])


class HiddenLayer(Plain):
    def keep(self):
        self.parts = {"first": nn.Linear(4, 4)}

    def forward(self, x):
        return super().forward(self.parts["first"](x))


class TestWhereTorchDoesNotLook:
    """No optimiser trains such weights, in the plain network either: that is said, once."""

    @pytest.mark.parametrize(("kind", "name"), [(Hidden, "scales"), (HiddenLayer, "parts")])
    @pytest.mark.parametrize("make", [ENSEMBLES[each] for each in ("single", "batch", "deep")])
    def test_fit_warns(self, kind, name, make):
        model = make(kind())
        with pytest.warns(UserWarning, match=f"{name!r}, where torch does not find") as said:
            fit(model)
        assert len(said) == 1

    def test_those_that_are_to_stay_as_they_are_are_no_news(self):
        class Teacher(HiddenLayer):
            def keep(self):
                super().keep()
                self.parts["first"].requires_grad_(False)

        fit(be.BatchEnsemble(Teacher(), 3))

    def test_inputs_that_ask_for_gradients_are_no_weights(self):
        class Penalised(Plain):
            def forward(self, x):
                return super().forward(x.detach().requires_grad_())

        model = be.BatchEnsemble(Penalised(), 3)
        x = torch.randn(5, 4, requires_grad=True)
        assert check_weights_registered(model, lambda: model(x)) == []
