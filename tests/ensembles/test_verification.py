"""``verify`` passes what is right, and names the module in which an ensemble goes wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import batchensemble as be
from batchensemble.ensembles.base import ForwardError

MEMBERS, BATCH = 3, 4


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def converted(network, **options):
    """Convert a network whose rows all go together, so that what is wrong stays wrong."""
    options = {"run": "together", **options}
    return be.BatchEnsemble(network, MEMBERS, init="normal", std=0.3, **options)


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Normalised(nn.Module):
    """A network with batch norm, dropout and a convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.stem(x))).mean(-1))


class Experts(nn.Module):
    """Sends each example to the expert that a router chooses, no more than fit in one."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(4, 2, bias=False)
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        chosen = self.router(x).argmax(-1)
        y = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            where = (chosen == index).nonzero().squeeze(-1)
            if len(where):
                y = y.index_copy(0, where, expert(x[where]))
        return y


class WithExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.experts, self.head = nn.Linear(4, 4), Experts(), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.experts(torch.tanh(self.stem(x))))


class Centred(nn.Module):
    """Takes the mean of the batch off."""

    def forward(self, x):
        return x - x.mean(0)


class Mixing(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(4, 4), inner, nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.inner(torch.tanh(self.stem(x))))


class ByBatch(nn.Module):
    def forward(self, x):
        return x * (len(x) / 4)


class Groups(nn.Module):
    """Takes the mean off each group of four examples, the last one filled with zeros."""

    def forward(self, x):
        groups = F.pad(x, (0, 0, 0, -len(x) % 4)).view(-1, 4, x.shape[1])
        return x - groups.mean(1).repeat_interleave(4, 0)[: len(x)]


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(4, 4)

    def forward(self, x):
        return self.inside(x).view(BATCH, 2, 2).flatten(1)


class Borrows(nn.Module):
    """Uses the weight of its first layer again, without calling it."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
        self.decode = Decoder(self.stem)

    def forward(self, x):
        return self.decode(self.norm(self.stem(x)))


class Decoder(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.tied = tied

    def forward(self, x):
        return x @ self.tied.weight


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm = nn.Embedding(9, 4), nn.LayerNorm(4)

    def forward(self, numbers):
        return F.linear(self.norm(self.words(numbers)), self.words.weight)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x, mixing):
        return self.head(x) * mixing.sum()


def x(batch=BATCH):
    return torch.randn(batch, 4)


GOOD = {
    "single": lambda: (be.Single(Normalised()), torch.randn(BATCH, 3, 5)),
    "deep": lambda: (be.DeepEnsemble(Normalised(), MEMBERS), torch.randn(BATCH, 3, 5)),
    "deep, stacked": lambda: (be.DeepEnsemble(mlp(), MEMBERS), x()),
    "batch": lambda: (converted(Normalised()), torch.randn(BATCH, 3, 5)),
    "additive": lambda: (be.BatchEnsemble(mlp(), MEMBERS, mode="additive", rank=2), x()),
    "mimo": lambda: (be.MIMO(mlp(), MEMBERS), x()),
    "experts one by one": lambda: (converted(WithExperts(), one_by_one=["experts"]), x()),
    "one example": lambda: (converted(Normalised()), torch.randn(1, 3, 5)),
    "as many steps as rows": lambda: (converted(mlp()), torch.randn(2, 6, 4)),
    "sequence first": lambda: (converted(nn.GRU(4, 5), batch_axis=1), torch.randn(6, 2, 4)),
    "packed": lambda: (
        converted(nn.Sequential(nn.GRU(4, 5, batch_first=True), Second())),
        pack_padded_sequence(torch.randn(4, 6, 4), [3, 6, 2, 5], True, enforce_sorted=False),
    ),
}


class Second(nn.Module):
    """Keeps the last state of a recurrent layer."""

    def forward(self, outputs):
        return outputs[1][-1]


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_ensembles_that_are_right_pass(good):
    model, examples = good()
    found = model.verify(examples)
    assert found.members == model.members
    assert found.largest_difference < 1e-12


def test_it_says_what_it_compared():
    found = converted(mlp()).verify(x(5))
    assert found.batches == (5, 4)
    expected = "3 members agree with their plain networks (batches of 5 and 4); largest difference"
    assert str(found).startswith(expected)
    assert be.Single(mlp()).verify(x(1)).batches == (1,)


BAD = {
    "mean over the batch": (
        lambda: Mixing(Centred()),
        "'inner' (Centred)",
        {"one_by_one": "inner"},
    ),
    "size of the batch": (lambda: Mixing(ByBatch()), "'inner' (ByBatch)", {"one_by_one": "inner"}),
    "experts": (WithExperts, "'experts", {"one_by_one": "experts"}),
    "another's weight": (Borrows, "'decode' (Decoder)", {"exclude": "stem"}),
}


@pytest.mark.parametrize("bad", BAD)
def test_the_first_module_that_goes_wrong_is_named(bad):
    make, place, cure = BAD[bad]
    with pytest.raises(
        ValueError, match=r"of the ensemble does not compute|the ensemble fails on"
    ) as error:
        converted(make()).verify(x(6))
    text = str(error.value)
    divergence = text[text.index("They first differ") :]
    assert place in divergence
    assert ("run='one_by_one'" in divergence) == ("one_by_one" in cure)
    assert ("exclude= or independent=" in divergence) == ("exclude" in cure)


@pytest.mark.parametrize("bad", BAD)
def test_the_cure_that_is_named_makes_it_right(bad):
    make, _, cure = BAD[bad]
    assert converted(make(), **cure).verify(x(6)).largest_difference < 1e-12


@pytest.mark.parametrize("cure", [{"independent": "experts"}, {"exclude": "experts"}])
def test_experts_may_be_each_members_own_or_shared_instead(cure):
    assert converted(WithExperts(), **cure).verify(x(6)).largest_difference < 1e-12


def test_what_a_forward_does_between_its_modules_is_told_from_the_modules():
    class Between(Mixing):
        def forward(self, x):
            hidden = self.stem(x)
            return self.head(hidden - hidden.mean(0))

    with pytest.raises(
        ValueError, match=r"They first differ before 'head' \(Linear\), in the forward of"
    ):
        converted(Between(nn.Identity())).verify(x())


def test_tied_weights_that_are_read_pass_once_the_layer_is_shared():
    numbers = torch.randint(9, (BATCH, 5))
    with pytest.raises(ValueError, match="They first differ in 'the network' \\(Tied\\)"):
        converted(Tied()).verify(numbers)
    assert converted(Tied(), exclude="words").verify(numbers).largest_difference < 1e-12
    everything = converted(Tied(), independent=lambda name, module: not name)
    assert everything.verify(numbers).largest_difference < 1e-12


def test_an_argument_that_only_looks_per_example_is_named_in_untiled():
    mixing = torch.randn(BATCH, 5)
    with pytest.raises(ValueError, match=r"does not compute.* not per example in untiled="):
        converted(Masked()).verify(x(), mixing)
    assert converted(Masked(), untiled="mixing").verify(x(), mixing).largest_difference < 1e-12


def test_what_only_fits_by_the_size_of_the_batch_is_found_with_one_example_less():
    model = converted(Mixing(Groups()))
    outputs, examples = model(x()), x()
    assert outputs.shape == (BATCH, MEMBERS, 2)
    torch.testing.assert_close(model(examples)[:, 1], model.member(1)(examples))
    with pytest.raises(
        ValueError, match=r"computes on 3 examples: .* They first differ in 'inner'"
    ):
        model.verify(examples)


def test_a_network_that_takes_one_number_of_examples_only_is_told_where():
    with pytest.raises(ValueError, match="takes 4 examples but not 2") as error:
        converted(Mixing(Fixed())).verify(x())
    assert "'inner' (Fixed) fails with shape '[4, 2, 2]' is invalid" in str(error.value)
    assert "run='one_by_one'" in str(error.value)
    apart = converted(Mixing(Fixed()), run="one_by_one")
    for model in (apart, be.Single(Mixing(Fixed()))):
        found = model.verify(x())
        assert found.batches == (BATCH,)
        assert found.largest_difference < 1e-12


def test_what_is_per_step_of_each_example_is_compared_too():
    class Flat(nn.Module):
        def __init__(self, turned):
            super().__init__()
            self.head, self.turned = nn.Linear(4, 2), turned

        def forward(self, x):
            y = self.head(x)
            return y, (y.transpose(0, 1) if self.turned else y).flatten(0, 1)

    examples = torch.randn(BATCH, 5, 4)
    assert converted(Flat(turned=False)).verify(examples).largest_difference < 1e-12
    with pytest.raises(ValueError, match="does not compute"):
        converted(Flat(turned=True)).verify(examples)


def test_infinite_and_missing_numbers_are_compared_like_others():
    class Masking(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            y = self.head(x)
            bad = torch.tensor([torch.nan, -torch.inf, 0.0])
            return torch.where(bad == 0, y, bad)

    class Sometimes(Masking):
        def forward(self, x):
            y = self.head(x)
            return y.masked_fill(torch.tensor(len(x) > BATCH), torch.nan)

    assert converted(Masking()).verify(x()).largest_difference < 1e-12
    with pytest.raises(ValueError, match="outputs differ by inf"):
        converted(Sometimes()).verify(x())


def test_complex_outputs_are_compared_in_both_parts():
    class Spectrum(nn.Module):
        def __init__(self, mixes):
            super().__init__()
            self.head, self.mixes = nn.Linear(4, 4), mixes

        def forward(self, x):
            y = torch.fft.rfft(self.head(x))
            return torch.complex(y.real, y.imag - y.imag.mean(0)) if self.mixes else y

    assert converted(Spectrum(mixes=False)).verify(x()).largest_difference < 1e-12
    with pytest.raises(ValueError, match="does not compute"):
        converted(Spectrum(mixes=True)).verify(x())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_difference(dtype):
    model = converted(Normalised()).to(dtype)
    assert model.verify(torch.randn(BATCH, 3, 5, dtype=dtype)).largest_difference < 0.05
    with pytest.raises(ValueError, match="'inner'"):
        converted(Mixing(Centred())).to(dtype).verify(x().to(dtype))


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_modes_statistics_and_random_numbers_stay_as_they_are(training, right):
    class Noisy(Normalised):
        def __init__(self):
            super().__init__()
            self.mixes = Centred() if not right else nn.Identity()

        def forward(self, x):
            torch.rand(3)
            return self.mixes(super().forward(x))

    model = converted(Noisy()).train(training)
    model.network.norm.train(not training)
    modes = [module.training for module in model.modules()]
    shells = model.network.norm.shell.training
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    examples = torch.randn(BATCH, 3, 5)
    random = torch.get_rng_state()
    if right:
        model.verify(examples)
    else:
        with pytest.raises(ValueError, match="'mixes' \\(Centred\\)"):
            model.verify(examples)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert model.network.norm.shell.training == shells
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("make", [converted, lambda net: be.DeepEnsemble(net, MEMBERS)])
def test_wrong_inputs_raise_the_networks_own_error(make):
    model = make(Normalised())
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels") as error:
        model.verify(torch.randn(BATCH, 7, 5))
    assert not isinstance(error.value, ForwardError)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'mixing'"):
        make(Masked()).verify(x())


def test_a_network_of_no_output_for_each_example_is_told_so():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x).mean()

    with pytest.raises(ValueError, match="must return a tensor with an axis of the batch"):
        converted(Mean()).verify(x())
