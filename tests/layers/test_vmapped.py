"""Stacked networks under vmap: the loop over the members, at once."""

import copy
import io
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torchvision.models import resnet18

import batchensemble as be
import torchvision_operators  # noqa: F401  # before torchvision
from batchensemble.layers import Independent, StackedLinear, Twin, Vmapped
from batchensemble.layers.modes import evaluating
from batchensemble.layers.vmapped import NotVmappableError
from reference import assert_same

MEMBERS = 3


class Words(nn.Module):
    """Embeds words and averages them."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, words):
        return self.linear(self.embedding(words).mean(1))


class Tied(nn.Module):
    """One weight in two layers, and one layer in two places."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight
        self.first = nn.Linear(4, 4)
        self.second = self.first

    def forward(self, words):
        return self.head(self.second(self.first(self.embedding(words)).tanh()))


class Counting(nn.Module):
    """Replaces a buffer in each call, and has one that is not saved."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 1)
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("offset", torch.ones(3, 1), persistent=False)

    def forward(self, x):
        y = self.conv(x) + self.offset
        self.seen = self.seen + y.detach().mean((0, 2))
        return y


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
    )


def transformer():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


def images():
    return torch.randn(4, 2, 5, 5)


def sentences():
    return torch.randint(9, (4, 3))


NETWORKS = {
    "convolution and batch norm": (convolutional, images),
    "Transformer": (transformer, lambda: torch.randn(4, 3, 8)),
    "embedding": (Words, sentences),
    "tied weights": (Tied, sentences),
    "batch norm first": (
        lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3)),
        lambda: torch.randn(4, 2, 5),
    ),
    "a buffer that is replaced": (Counting, lambda: torch.randn(4, 2, 5)),
}
each_network = pytest.mark.parametrize(("make", "inputs"), NETWORKS.values(), ids=NETWORKS)


def ensemble(make, **options):
    return be.DeepEnsemble(make(), MEMBERS, stacked=True, **options)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@each_network
def test_it_is_the_loop_over_its_members_and_so_are_gradients_and_statistics(
    make, inputs, training
):
    model = ensemble(make).train(training)
    assert isinstance(model.network, Vmapped)
    members = [model.member(index) for index in range(MEMBERS)]
    assert all(member.training == training for member in members)
    x = inputs()
    for _ in range(2):  # statistics go on from where they were
        outputs = model(x)
        expected = torch.stack([member(x) for member in members], 1)
        assert_same(outputs, expected)
    outputs.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    stacked = dict(model.network.stacked.named_parameters())
    for index, member in enumerate(members):
        for name, parameter in member.named_parameters():
            assert_same(stacked[name].grad[index], parameter.grad)
        for (name, buffer), own in zip(
            member.named_buffers(), model.member(index).buffers(), strict=True
        ):
            torch.testing.assert_close(own, buffer, rtol=1e-10, atol=1e-10, msg=name)


def test_a_resnet_is_the_loop_over_its_members():
    model = be.DeepEnsemble(resnet18(num_classes=5), 2, stacked=True)
    members = [model.member(0), model.member(1)]
    x = torch.randn(2, 3, 32, 32)
    outputs, expected = model(x), torch.stack([member(x) for member in members], 1)
    assert_same(outputs, expected)
    outputs.pow(2).sum().backward()
    expected.pow(2).sum().backward()
    stacked = dict(model.network.stacked.named_parameters())
    for name, parameter in members[1].named_parameters():
        assert_same(stacked[name].grad[1], parameter.grad)
    assert_same([*model.member(1).buffers()], [*members[1].buffers()])


@each_network
def test_without_gradients_it_is_the_loop_too(make, inputs):
    model, x = ensemble(make).eval(), inputs()
    with torch.no_grad():
        expected = torch.stack([model.member(index)(x) for index in range(MEMBERS)], 1)
        assert_same(model(x), expected)
    assert torch.backends.mha.get_fastpath_enabled()
    model.verify(x)


def test_a_members_gradients_come_from_its_own_rows_alone():
    model = ensemble(convolutional)
    model(images())[:, 1].pow(2).sum().backward()
    for parameter in model.parameters():
        reached = [bool(part.any()) for part in parameter.grad]
        assert not reached[0]
        assert not reached[2]
    assert any(parameter.grad[1].any() for parameter in model.parameters())


def test_gradients_of_inputs_are_right():
    model = ensemble(lambda: nn.Sequential(nn.Conv1d(2, 2, 2), nn.Tanh()))
    x = torch.randn(2, 2, 3, requires_grad=True)
    assert torch.autograd.gradcheck(model, x)


def test_each_member_may_have_its_own_examples():
    model = ensemble(convolutional).eval()
    x = torch.randn(4, MEMBERS, 2, 5, 5)
    outputs = model(x, per_member=True)
    for index in range(MEMBERS):
        assert_same(outputs[:, index], model.member(index)(x[:, index]))


def test_members_drop_different_units():
    plain = nn.Sequential(nn.Conv1d(1, 50, 1), nn.Dropout(0.5))
    model = be.DeepEnsemble.from_members([copy.deepcopy(plain) for _ in range(2)], stacked=True)
    dropped = model(torch.ones(3, 1, 2)) == 0
    assert 0.3 < dropped.double().mean() < 0.7
    assert not torch.equal(dropped[:, 0], dropped[:, 1])
    assert not torch.equal(dropped[0], dropped[1])
    model.eval()
    assert torch.equal(model(torch.ones(3, 1, 2))[:, 0], plain.eval()(torch.ones(3, 1, 2)))


def test_stacked_twins_come_first():
    model = ensemble(lambda: nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    assert isinstance(model.network[0], StackedLinear)


def test_by_default_such_networks_are_copies():
    assert isinstance(be.DeepEnsemble(convolutional(), MEMBERS).network, Independent)


def test_one_member_and_no_examples():
    model = be.DeepEnsemble(convolutional(), 1, stacked=True).eval()
    x = images()
    assert_same(model(x)[:, 0], model.member(0)(x))
    assert ensemble(convolutional).eval()(x[:0]).shape == (0, MEMBERS, 2)


Pair = namedtuple("Pair", "rows extra")


class Nested(nn.Module):
    """Takes and returns nested tensors."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 1)

    def forward(self, inputs, *, scale, table=None):
        y = self.conv(inputs["x"]) * scale[:, None, None]
        if table is not None:
            y = y + table
        return {"pair": Pair(y, [y.mean()]), "name": "nested", "sums": (y.sum(1).t(),)}


def test_arguments_and_outputs_may_be_nested():
    model = ensemble(Nested, untiled=["table"])
    arguments = {"x": torch.randn(4, 2, 5)}, {"scale": torch.randn(4), "table": torch.randn(3, 5)}
    outputs = model(arguments[0], **arguments[1])
    expected = [model.member(index)(arguments[0], **arguments[1]) for index in range(MEMBERS)]
    assert isinstance(outputs["pair"], Pair)
    assert outputs["name"] == "nested"
    assert_same(outputs["pair"].rows, torch.stack([each["pair"].rows for each in expected], 1))
    losses = torch.stack([each["pair"].extra[0] for each in expected])
    assert_same(outputs["pair"].extra[0], losses.mean())
    assert_same(outputs["sums"][0], torch.stack([each["sums"][0].t() for each in expected], 1))


def test_the_batch_may_be_the_second_axis():
    model = ensemble(lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), batch_axis=1)
    x = torch.randn(5, 4, 8)
    expected = [model.member(index)(x).transpose(0, 1) for index in range(MEMBERS)]
    assert_same(model(x), torch.stack(expected, 1))


def test_hooks_are_called_and_come_out():
    seen = []
    network = convolutional()
    network[0].register_forward_hook(lambda module, args, output: seen.append("inner"))
    network.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    model = ensemble(lambda: network)
    model(images())
    assert seen == ["inner", (4, 2)]  # once for all members, with what one of them has
    model.member(0)(images())
    assert seen == ["inner", (4, 2)] * 2


class TestMembers:
    @each_network
    def test_come_out_as_they_went_in(self, make, inputs):
        networks = [make() for _ in range(MEMBERS)]
        model = be.DeepEnsemble.from_members(networks, stacked=True)
        for index, network in enumerate(networks):
            member = model.member(index)
            assert type(member) is type(network)
            state, own = network.state_dict(), member.state_dict()
            assert list(own) == list(state)
            assert all(torch.equal(own[name], value) for name, value in state.items())
            assert len([*member.parameters()]) == len([*network.parameters()])
            assert len([*member.modules()]) == len([*network.modules()])
            assert not any(tensor.is_meta for tensor in [*member.parameters(), *member.buffers()])

    def test_of_tied_weights_stay_tied(self):
        model = ensemble(Tied)
        member = model.member(1)
        assert member.head.weight is member.embedding.weight
        assert member.second is member.first
        assert model.parameter_counts()["parameters_per_member"] == 9 * 4 + 4 * 4 + 4
        chosen = model.select([1])
        assert chosen.network.stacked.head.weight is chosen.network.stacked.embedding.weight

    def test_are_not_the_ensembles_own_tensors(self):
        model = ensemble(convolutional)
        with torch.no_grad():
            model.member(0)[0].weight.zero_()
        assert model.network.stacked.get_parameter("0.weight")[0].any()

    def test_may_be_selected(self):
        model, x = ensemble(convolutional).eval(), images()
        assert_same(model.select([2, 0])(x), model(x)[:, [2, 0]])
        assert model.select([-1]).members == 1

    def test_may_be_put(self):
        twin, network = ensemble(convolutional).network, convolutional()
        twin.put(1, network)
        for name, value in twin.member(1).state_dict().items():
            assert torch.equal(value, network.state_dict()[name])
        assert twin.stacked.get_parameter("0.weight").requires_grad

    def test_keep_frozen_weights_and_modes_of_their_modules(self):
        network = convolutional()
        network[0].requires_grad_(False)
        network[1].eval()
        model = ensemble(lambda: network)
        with evaluating(model):
            assert not model.member(0).training
        member = model.member(0)
        assert member.training
        assert not member[1].training
        assert [each.requires_grad for each in member[0].parameters()] == [False, False]
        assert sum(each.requires_grad for each in model.parameters()) == 4


def test_weights_make_the_round_trip():
    model, x = ensemble(convolutional).eval(), images()
    other = ensemble(convolutional).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), model(x))


def test_a_buffer_that_is_not_saved_is_not_saved():
    model = ensemble(Counting)
    assert [name for name in model.state_dict() if "stacked" in name] == [
        f"network.stacked.{name}" for name in ("seen", "conv.weight", "conv.bias")
    ]
    model.half()
    assert model.network.stacked.offset.dtype == torch.half
    assert model.member(0).conv.weight.dtype == torch.half


def test_weights_of_another_number_of_members_are_refused():
    state = be.DeepEnsemble(convolutional(), 2, stacked=True).state_dict()
    with pytest.raises(ValueError, match="the weights are those of 2 members"):
        ensemble(convolutional).load_state_dict(state)


def test_an_optimisers_groups_and_the_report_know_what_weights_are():
    model = ensemble(convolutional)
    groups = {each["name"]: each for each in model.parameter_groups(lr=0.1, weight_decay=0.01)}
    assert {name: len(each["params"]) for name, each in groups.items()} == {
        "shared": 2,
        "bias": 2,
        "norm": 2,
    }
    parameters = {id(each) for group in groups.values() for each in group["params"]}
    assert parameters == {id(each) for each in model.parameters()}
    [row] = model.report().rows
    counts = sum(each.numel() for each in convolutional().parameters())
    assert (row.kind, row.sharing, row.shared, row.per_member) == (
        "Sequential",
        "independent",
        0,
        counts,
    )
    assert model.calls_per_forward == 1
    assert "Sequential, members=3" in repr(model)


def test_training_fits_and_predicts():
    X = torch.randn(30, 2, 5, 5).float()
    y = (X.mean((1, 2, 3)) > 0).long()
    model = ensemble(convolutional).float()
    be.fit(model, (X, y), epochs=2, batch_size=10)
    assert be.predict(model, X).member_probs.shape == (30, MEMBERS, 2)
    assert model.network.stacked.get_buffer("1.num_batches_tracked").tolist() == [6] * MEMBERS


class TestAutocast:
    def test_reaches_every_member(self):
        model = be.DeepEnsemble(
            nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten(), nn.Linear(9, 2)), 3, stacked=True
        ).float()
        x = torch.randn(4, 2, 3).float()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(x)
            expected = torch.stack([model.member(index)(x) for index in range(3)], 1)
        assert outputs.dtype == torch.bfloat16
        assert torch.equal(outputs, expected)
        outputs.float().sum().backward()
        assert all(part.any() for each in model.parameters() for part in each.grad)

    def test_keeps_statistics(self):
        model = ensemble(Counting).float()
        x = torch.randn(4, 2, 5).float()
        members = [model.member(index) for index in range(MEMBERS)]
        with torch.autocast("cpu", torch.bfloat16):
            model(x)
            [member(x) for member in members]
        assert_same(model.network.stacked.seen, torch.stack([each.seen for each in members]))


class Branching(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inner, self.how = nn.Conv1d(2, 2, 1), how

    def forward(self, x):
        return self.how(self.inner(x))


def written_into(y):
    table = torch.zeros(y.shape)
    table[:, 0] = y[:, 0]
    return table


class Masked(nn.Module):
    """Looks at its mask before it uses it, as networks of Hugging Face do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 1)

    def forward(self, x, mask):
        y = self.conv(x)
        return y if mask.all() else y.masked_fill(~mask[:, None], 0.0)


def test_networks_may_look_at_masks():
    model, x = ensemble(Masked), torch.randn(4, 2, 3)
    for mask in (torch.ones(4, 3) > 0, torch.randn(4, 3) > 0):
        expected = [model.member(index)(x, mask) for index in range(MEMBERS)]
        assert_same(model(x, mask), torch.stack(expected, 1))


REFUSED = {
    "branches on the data": lambda y: y if y.sum() > 0 else -y,
    "item": lambda y: y * y.sum().item(),
    "written into": written_into,
    "a choice of rows": lambda y: y[y[:, 0, 0] > 0],
    "packed": lambda y: pack_padded_sequence(y, torch.ones(len(y)), batch_first=True),
}


@pytest.mark.parametrize("how", REFUSED.values(), ids=REFUSED)
def test_what_vmap_does_not_allow_is_told_at_the_first_call(how):
    model = ensemble(lambda: Branching(how))
    with pytest.raises(ValueError, match=r"under torch\.func\.vmap: .*Give stacked=False"):
        model(torch.randn(4, 2, 3))


def test_the_sentence_names_the_module():
    model = ensemble(lambda: nn.Sequential(Branching(REFUSED["item"]), nn.Flatten()))
    with pytest.raises(NotVmappableError, match=r"'0' \(Branching\): .*\.item\(\)"):
        model(torch.randn(4, 2, 3))


def test_recurrent_networks_are_refused():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0]

    model = ensemble(Recurrent)
    with pytest.raises(NotVmappableError, match=r"'lstm' \(LSTM\).*lstm"):
        model(torch.randn(4, 5, 3))
    member = model.member(0)  # which is whole all the same
    assert member(torch.randn(4, 5, 3)).shape == (4, 5, 4)


def test_wrong_inputs_raise_the_networks_own_error():
    model = ensemble(convolutional)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="to have 2 channels, but got 3 channels"):
        model(torch.randn(4, 3, 5, 5))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_twin_of_its_own_takes_rows():
    networks = [nn.Conv1d(2, 4, 3) for _ in range(MEMBERS)]
    twin = Vmapped(networks)
    assert isinstance(twin, Twin)
    assert twin.kernel_size == (3,)
    rows = torch.randn(MEMBERS * 5, 2, 7)
    expected = torch.cat([f(part) for f, part in zip(networks, rows.chunk(MEMBERS), strict=True)])
    assert_same(twin(rows), expected)
    twin.average()
    assert_same(twin.member(0).weight, torch.stack([each.weight for each in networks]).mean(0))
