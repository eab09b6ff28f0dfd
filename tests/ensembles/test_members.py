"""Members come out, go in, are selected and averaged."""

import copy

import pytest
import torch
from torch import nn

import batchensemble as be

MEMBERS = 4


class Everything(nn.Module):
    """A network with a layer of most families and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.convolution = nn.Conv1d(6, 8, 3, groups=2, padding=1)
        self.up = nn.ConvTranspose1d(8, 6, 2, groups=2)
        self.batch_norm = nn.BatchNorm1d(6)
        self.recurrent = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.pair = nn.Bilinear(10, 10, 7)
        self.head = nn.Sequential(nn.PReLU(), nn.Linear(7, 3))

    def forward(self, numbers):
        hidden = torch.cat([self.token.expand(len(numbers), -1, -1), self.words(numbers)], 1)
        hidden = self.norm(hidden + self.attention(hidden, hidden, hidden)[0])
        hidden = self.batch_norm(self.up(self.convolution(hidden.mT))).mT
        sequence, _ = self.recurrent(hidden)
        return self.head(self.pair(sequence[:, 0], sequence[:, -1]))


def network():
    torch.manual_seed(0)
    net = Everything().double()
    net(numbers(16))  # batch norm has seen something
    return net.eval()


def numbers(batch):
    return torch.randint(11, (batch, 5), generator=torch.Generator().manual_seed(1))


KINDS = {
    "multiplicative": {"init": "normal"},
    "random sign": {},
    "additive": {"mode": "additive", "rank": 2},
    "additive with alpha": {"mode": "additive", "rank": 2, "alpha": 3.0},
    "shared biases and norms": {"init": "normal", "bias": "shared", "norm": "shared"},
}


@pytest.fixture(params=KINDS)
def model(request):
    model = be.BatchEnsemble(network(), MEMBERS, **KINDS[request.param])
    with torch.no_grad():  # each member's own, also what starts alike
        for group in model.parameter_groups(lr=1.0):
            for parameter in group["params"]:
                if group["name"] != "shared":
                    parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    return model


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_selection_is_an_ensemble_of_these_members(model):
    x = numbers(6)
    part = model.select([3, 1, -1])
    assert type(part) is be.BatchEnsemble
    assert part.members == 3
    close(part(x), model(x)[:, [3, 1, 3]])
    close(part.member(1)(x), model.member(1)(x))
    assert model.members == MEMBERS


def test_a_selection_shares_no_memory_with_the_whole(model):
    part = model.select([0])
    before = model(numbers(6))
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()
    assert torch.equal(model(numbers(6)), before)


@pytest.mark.parametrize("make", [be.BatchEnsemble, be.DeepEnsemble])
def test_chains_of_layers_can_be_selected_from_too(make):
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).double()
    model = make(net, MEMBERS).eval()
    x = torch.randn(6, 3).double()
    close(model.select([2, 0])(x), model(x)[:, [2, 0]])


def test_copies_can_be_selected_from_too():
    model = be.DeepEnsemble(network(), MEMBERS, reset=lambda net: None, stacked=False)
    close(model.select([1])(numbers(6)), model(numbers(6))[:, [1]])


def test_a_module_run_one_by_one_follows_a_selection():
    model = be.BatchEnsemble(network(), MEMBERS, init="normal", one_by_one=["head"])
    x = numbers(6)
    close(model.select([2, 0])(x), model(x)[:, [2, 0]])


@pytest.mark.parametrize(("indices", "error"), [([], ValueError), ([7], IndexError)])
def test_a_selection_of_nothing_or_of_strangers_is_refused(model, indices, error):
    with pytest.raises(error):
        model.select(indices)


def test_mimo_cannot_be_parted():
    with pytest.raises(ValueError, match="share one network"):
        be.MIMO(nn.Linear(2, 3), MEMBERS).select([0])


@pytest.mark.filterwarnings("ignore:the mean of the members is probably no useful network")
def test_the_average_has_the_mean_of_the_fast_weights(model):
    average = model.average()
    assert type(average) is Everything
    layer = model.network.head[1]
    weight, r, s = layer.weight, layer.r.mean(0), layer.s.mean(0)
    if layer.options.mode == "multiplicative":
        expected = weight * torch.outer(s, r)
    else:
        expected = weight + (layer.options.alpha or 2) / 2 * s.T @ r
    close(average.head[1].weight, expected)
    bias = layer.bias if layer.bias.dim() == 1 else layer.bias.mean(0)
    close(average.head[1].bias, bias)
    close(average.batch_norm.running_mean, model.network.batch_norm.running_mean.mean(0))


def test_the_average_of_identical_members_is_each_of_them():
    net = network()
    model = be.BatchEnsemble(net, MEMBERS, init="ones")
    close(model.average()(numbers(6)), net(numbers(6)))


@pytest.mark.parametrize("options", [{}, {"init": "normal", "std": 1.5}])
def test_an_average_of_members_that_cancel_out_is_warned_of(options):
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Linear(20, 20), MEMBERS, **options)
    with pytest.warns(UserWarning, match=r"no useful network: the cosine .* is 0\.[1-5]") as found:
        model.average()
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    "options",
    [
        {"init": "ones"},
        {"init": "normal", "std": 0.2},
        {"init": "normal", "std": 0.5},
        {"mode": "additive", "rank": 2},
        {"exclude": ["0"], "init": "normal", "std": 0.2},
    ],
)
def test_an_average_of_similar_members_is_not_warned_of(options):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20))
    model = be.BatchEnsemble(network, MEMBERS, **options)
    assert type(model.average()) is nn.Sequential


def test_independent_modules_are_not_averaged():
    model = be.BatchEnsemble(network(), MEMBERS, independent=["head.1"])
    with pytest.raises(ValueError, match=r"'head\.1' is independent .* cannot be averaged"):
        model.average()


def test_a_member_can_be_put_where_another_was(model):
    x = numbers(6)
    before = model(x)
    model.set_member(0, model.member(2))
    close(model(x)[:, 0], before[:, 2])
    close(model(x)[:, 1:], before[:, 1:])


def test_a_member_that_does_not_fit_is_refused_and_nothing_changes(model):
    stranger = model.member(2)
    with torch.no_grad():
        stranger.convolution.weight.add_(torch.randn_like(stranger.convolution.weight))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"'convolution'"):
        model.set_member(0, stranger)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_parameter_that_all_share_must_be_the_same(model):
    stranger = model.member(2)
    with torch.no_grad():
        stranger.token.add_(1)
    with pytest.raises(ValueError, match="'token' is shared by all members"):
        model.set_member(0, stranger)


def test_another_architecture_is_no_member(model):
    with pytest.raises(ValueError, match="same architecture"):
        model.set_member(0, nn.Linear(2, 3))


def test_members_make_an_ensemble_again():
    model = be.BatchEnsemble(network(), MEMBERS, init="normal")
    again = be.BatchEnsemble.from_members([model.member(i) for i in range(MEMBERS)])
    close(again(numbers(6)), model(numbers(6)))
    assert again.parameter_counts() == model.parameter_counts()


def test_additive_members_make_one_of_twice_the_rank():
    model = be.BatchEnsemble(network(), MEMBERS, mode="additive", rank=1)
    members = [model.member(i) for i in range(MEMBERS)]
    again = be.BatchEnsemble.from_members(members, mode="additive", rank=2)
    close(again(numbers(6)), model(numbers(6)))
    with pytest.raises(ValueError, match="no additive change of rank 1"):
        be.BatchEnsemble.from_members(members, mode="additive", rank=1)


def test_independent_networks_are_no_members():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="no multiplicative change of rank 1 takes the shared"):
        be.BatchEnsemble.from_members([nn.Linear(4, 3), nn.Linear(4, 3)])
    with pytest.raises(ValueError, match="at least one network"):
        be.BatchEnsemble.from_members([])


def test_weights_move_into_a_newly_converted_network(model):
    options = model.network.head[1].options.by_name()
    other = be.BatchEnsemble(Everything().double().eval(), MEMBERS, **options)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(numbers(6)), model(numbers(6)))


@pytest.mark.parametrize("make", [be.BatchEnsemble, lambda *a: be.DeepEnsemble(*a, stacked=False)])
def test_weights_of_another_number_of_members_are_refused(make):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="those of 3 members, and this ensemble has 4"):
        make(net, 4).load_state_dict(make(net, 3).state_dict())


def test_converting_in_place_changes_the_network_itself():
    net = network()
    weight = net.head[1].weight
    model = be.BatchEnsemble(net, MEMBERS, inplace=True)
    assert model.network is net
    assert net.head[1].weight is weight
    copied = be.BatchEnsemble(network(), MEMBERS)
    assert list(copied.state_dict()) == list(model.state_dict())


def test_a_frozen_layer_stays_frozen_with_fast_weights_that_learn():
    net = network()
    net.head[1].requires_grad_(False)
    layer = be.BatchEnsemble(net, MEMBERS).network.head[1]
    assert not layer.weight.requires_grad
    assert not layer.bias.requires_grad
    assert layer.r.requires_grad
    assert not be.BatchEnsemble(net, MEMBERS).member(0).head[1].weight.requires_grad


def test_the_mode_of_each_module_stays():
    net = network().train()
    net.batch_norm.eval()
    model = be.BatchEnsemble(net, MEMBERS)
    assert model.training
    assert model.network.head[1].training
    assert not model.network.batch_norm.training
    assert not model.member(0).batch_norm.training
    assert model.member(0).head[1].training
