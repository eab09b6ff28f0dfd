"""Branched ensembles: the trunk runs once, and everything else is as without a branch."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import batchensemble as be
import torchvision_operators  # noqa: F401

MEMBERS = 3
TOLERANCE = {"atol": 1e-10, "rtol": 1e-10}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


class Nested(nn.Module):
    """An encoder whose second block is the branch, the batch's mask given to each block."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.stem = nn.Linear(4, 6)
        self.encoder = Blocks()
        self.head = nn.Linear(6, 2)

    def forward(self, x, scale):
        h = self.encoder(self.relu(self.stem(x)), scale)
        return {"logits": self.head(self.relu(h["last"])), "first": h["first"]}


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x, scale):
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1], scale=scale))
        return {"last": states[-1], "first": states[1]}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x, scale):
        return x + scale * torch.tanh(self.linear(self.norm(x)))


def chain():
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 6), nn.Linear(6, 3)
    )


def convnet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.Linear(96, 3),
    )


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 3)


def padding():
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[1, 2:] = True
    return mask


SPECIMENS = {
    # A network, its branch, what is before it, and inputs.
    "chain": (chain, "4", ["0", "2"], lambda: ((torch.randn(5, 4),), {})),
    "convnet": (convnet, "3", ["0", "1"], lambda: ((torch.randn(5, 1, 8, 8),), {})),
    "resnet18": (
        lambda: resnet18(num_classes=4),
        "layer3",
        ["conv1", "bn1", "layer1", "layer2"],
        lambda: ((torch.randn(3, 3, 33, 33),), {}),
    ),
    "encoder": (
        encoder,
        "layers.1",
        ["layers.0"],
        lambda: ((torch.randn(5, 4, 8),), {"src_key_padding_mask": padding()}),
    ),
    "nested": (
        Nested,
        "encoder.blocks.1",
        ["stem", "encoder.blocks.0"],
        lambda: ((torch.randn(5, 4), torch.rand(5, 1)), {}),
    ),
}


def tensors(output):
    return output if isinstance(output, dict) else {"output": output}


def pair(name):
    """Return a branched ensemble, the same without a branch, and inputs."""
    make, branch, trunk, inputs = SPECIMENS[name]
    network = make()
    branched = be.BatchEnsemble(network, MEMBERS, branch_at=branch)
    unbranched = be.BatchEnsemble(network, MEMBERS, exclude=trunk)
    unbranched.load_state_dict(branched.state_dict())
    return branched, unbranched, inputs()


@pytest.mark.parametrize(
    ("name", "training"),
    [*((name, True) for name in SPECIMENS), ("convnet", False), ("encoder", False)],
)
def test_a_branch_changes_no_number(name, training):
    branched, unbranched, (args, kwargs) = pair(name)
    branched.train(training)
    unbranched.train(training)
    for _ in range(1 if name == "resnet18" else 2):  # the first pass looks where the rows are
        got, expected = tensors(branched(*args, **kwargs)), tensors(unbranched(*args, **kwargs))
        for key, value in expected.items():
            torch.testing.assert_close(got[key], value, **TOLERANCE)
    weights = {key: torch.randn_like(value) for key, value in expected.items()}
    for outputs in (got, expected):
        sum((outputs[key] * weights[key]).sum() for key in outputs).backward()
    for (each, one), other in zip(
        branched.named_parameters(), unbranched.parameters(), strict=True
    ):
        # Batch norm over few examples enlarges what rounding does to gradients.
        size = other.grad.abs().max().clamp(min=1.0)
        torch.testing.assert_close(one.grad / size, other.grad / size, **TOLERANCE, msg=each)
    statistics = zip(branched.named_buffers(), unbranched.buffers(), strict=True)
    for (each, one), other in statistics:
        # Unbiased variances know how many rows there were: those of the trunk are a plain net's.
        if not (training and each.endswith("running_var")):
            torch.testing.assert_close(one, other, **TOLERANCE, msg=each)


@pytest.mark.parametrize("name", [name for name in SPECIMENS if name != "resnet18"])
@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
def test_members_compute_alone_what_they_compute_together(name, method):
    make, branch, _, inputs = SPECIMENS[name]
    args, kwargs = inputs()
    model = method(make(), MEMBERS, branch_at=branch).eval()
    assert model.verify(*args, **kwargs).largest_difference < 1e-10
    outputs = tensors(model(*args, **kwargs))
    for index in range(MEMBERS):
        member = model.member(index)
        assert not any(module._forward_pre_hooks for module in member.modules())
        assert type(member) is type(make())
        for key, value in tensors(member(*args, **kwargs)).items():
            torch.testing.assert_close(outputs[key][:, index], value, **TOLERANCE)


def test_statistics_of_the_trunk_are_those_of_a_plain_network():
    network = convnet().train()
    model = be.BatchEnsemble(network, MEMBERS, branch_at="3").train()
    x = torch.randn(5, 1, 8, 8)
    model(x)
    network(x)
    assert model.network[1].num_batches_tracked == 1
    torch.testing.assert_close(model.network[1].running_var, network[1].running_var, **TOLERANCE)
    torch.testing.assert_close(model.network[1].running_mean, network[1].running_mean, **TOLERANCE)


@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
def test_the_trunk_runs_once_on_the_batch(method):
    model = method(chain(), MEMBERS, branch_at="4")
    model(torch.randn(5, 4))  # the first pass looks where the rows are
    rows = {}
    for name in ("0", "3", "4", "5"):
        module = model.network.get_submodule(name)
        rows[name] = []
        module.register_forward_hook(lambda _, args, out, r=rows[name]: r.append(len(args[0])))
    model(torch.randn(5, 4))
    assert rows == {"0": [5], "3": [5], "4": [15], "5": [15]}
    model(torch.randn(5, MEMBERS, 4), per_member=True)
    assert rows["0"] == [5, 15]


def test_examples_of_each_member_run_through_the_trunk_each():
    branched, unbranched, _ = pair("chain")
    x = torch.randn(5, MEMBERS, 4)
    got, expected = branched(x, per_member=True), unbranched(x, per_member=True)
    torch.testing.assert_close(got, expected, **TOLERANCE)
    rows, others = branched.rows(x[:, 0]), unbranched.rows(x[:, 0])
    torch.testing.assert_close(rows, others, **TOLERANCE)


@pytest.mark.parametrize("batch", [0, 1, 2, MEMBERS])
def test_batches_of_all_sizes(batch):
    branched, unbranched, _ = pair("nested")
    inputs = torch.randn(batch, 4), torch.rand(batch, 1)
    got, expected = branched(*inputs), unbranched(*inputs)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, **TOLERANCE)


def test_one_member_and_the_first_module():
    x = torch.randn(5, 4)
    one = be.BatchEnsemble(chain(), 1, branch_at="4")
    torch.testing.assert_close(one(x)[:, 0], one.member(0)(x), **TOLERANCE)
    network = chain()
    all_of_it = be.BatchEnsemble(network, MEMBERS, branch_at="0")
    plain = be.BatchEnsemble(network, MEMBERS)
    plain.load_state_dict(all_of_it.state_dict())
    torch.testing.assert_close(all_of_it(x), plain(x), **TOLERANCE)


class Series(nn.Module):
    """Time first; the mask of padding has its batch first."""

    def __init__(self):
        super().__init__()
        self.first, self.gru, self.head = nn.Linear(4, 6), nn.GRU(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.gru(self.first(x))[0])


@pytest.mark.parametrize("shape", [(7, 3, 4), (3, 3, 4), (9, 3, 4)])
@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
def test_sequences_with_time_first(method, shape):
    model = method(Series(), MEMBERS, branch_at="gru", batch_axis=1).eval()
    x = torch.randn(shape)
    for index in range(MEMBERS):
        expected = model.member(index)(x).transpose(0, 1)
        torch.testing.assert_close(model(x)[:, index], expected, **TOLERANCE)


@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
def test_copies_selections_and_files(method):
    model = method(convnet(), MEMBERS, branch_at="3").eval()
    x = torch.randn(4, 1, 8, 8)
    expected = model(x)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected, **TOLERANCE)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), expected, **TOLERANCE)
    torch.testing.assert_close(model.select([2, 0])(x), expected[:, [2, 0]], **TOLERANCE)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = method(convnet(), MEMBERS, branch_at="3").eval()
    other.load_state_dict(torch.load(file))
    torch.testing.assert_close(other(x), expected, **TOLERANCE)


@pytest.mark.filterwarnings("ignore:the mean of the members is probably no useful network")
def test_members_in_and_averaged():
    x = torch.randn(5, 4)
    model = be.BatchEnsemble(chain(), MEMBERS, branch_at="4")
    members = [model.member(index) for index in range(MEMBERS)]
    again = be.BatchEnsemble.from_members(members, branch_at="4")
    torch.testing.assert_close(again(x), model(x), **TOLERANCE)
    model.set_member(0, members[2])
    torch.testing.assert_close(model(x)[:, 0], members[2](x), **TOLERANCE)
    average = model.average()
    assert not any(module._forward_pre_hooks for module in average.modules())
    deep = be.DeepEnsemble.from_members(members, branch_at="4")
    torch.testing.assert_close(deep(x)[:, 1], members[1](x), **TOLERANCE)
    with pytest.raises(ValueError, match=r"'0.weight' is before branch_at='4' and so shared"):
        be.DeepEnsemble.from_members([chain(), chain()], branch_at="4")


def test_a_deep_ensemble_keeps_the_trunk_and_draws_the_rest():
    network = chain()
    model = be.DeepEnsemble(network, MEMBERS, branch_at="4")
    first, second = model.member(0), model.member(1)
    assert torch.equal(first[0].weight, network[0].weight)
    assert torch.equal(first[2].weight, second[2].weight)
    assert not torch.equal(first[4].weight, second[4].weight)
    assert not model.own_examples
    assert be.DeepEnsemble(network, MEMBERS).own_examples
    drawn = be.DeepEnsemble(
        network, MEMBERS, branch_at="4", reset=lambda net: nn.init.ones_(net[4].weight)
    )
    assert torch.equal(drawn.member(2)[4].weight, torch.ones(6, 8))


def test_the_report_says_what_runs_once():
    report = be.BatchEnsemble(chain(), MEMBERS, branch_at="4").report()
    assert [(row.name, row.sharing, row.reason) for row in report] == [
        ("0", "shared", "runs once"),
        ("2", "shared", "runs once"),
        ("4", "rank_one", ""),
        ("5", "rank_one", ""),
    ]
    assert report.branch_at == "4"


def test_it_trains():
    torch.set_default_dtype(torch.float32)
    data = torch.randn(40, 4), torch.randint(3, (40,))
    for method in (be.BatchEnsemble, be.DeepEnsemble):
        model = method(chain(), MEMBERS, branch_at="2")
        be.fit(model, data, epochs=1)
        assert be.predict(model, data[0]).member_probs.shape == (40, MEMBERS, 3)
        groups = model.parameter_groups(lr=0.1)
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_hooks_of_users_see_the_rows():
    network, seen = chain(), []
    network[4].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    model = be.BatchEnsemble(network, MEMBERS, branch_at="4")
    model(torch.randn(5, 4))
    model(torch.randn(5, 4))
    assert seen[-1] == 15
    model.member(0)(torch.randn(5, 4))
    assert seen[-1] == 5
    network(torch.randn(5, 4))
    assert seen[-1] == 5


def test_gradients_by_function_transforms():
    model, x = be.BatchEnsemble(chain(), MEMBERS, branch_at="4"), torch.randn(5, 4)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    gradients = torch.func.grad(
        lambda weights: torch.func.functional_call(model, weights, (x,)).square().sum()
    )(weights)
    model(x).square().sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, **TOLERANCE)


def test_half_precision():
    model = be.BatchEnsemble(convnet(), MEMBERS, branch_at="3").to(torch.bfloat16).eval()
    assert model(torch.randn(2, 1, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"branch_at": "layer3"}, ValueError, "branch_at names 'layer3', but the network has no"),
        ({"branch_at": 3}, TypeError, "takes the name of one module, got 3"),
        ({"branch_at": ""}, ValueError, "has no such module"),
        (
            {"branch_at": "3", "independent": ["0"]},
            ValueError,
            "independent names '0', which runs before branch_at='3'",
        ),
        ({"branch_at": "3", "include": nn.Conv2d}, ValueError, "include names '0', which runs"),
        ({"branch_at": "3", "one_by_one": ["0"]}, ValueError, "one_by_one names '0', which runs"),
        ({"branch_at": "5"}, None, ""),
        ({"branch_at": "5", "exclude": "6"}, ValueError, "all members would be the same network"),
    ],
)
def test_what_is_refused(as_users_run_it, options, error, message):
    if error is None:
        assert be.BatchEnsemble(convnet(), MEMBERS, **options)
        return
    with pytest.raises(error, match=message):
        be.BatchEnsemble(convnet(), MEMBERS, **options)


def test_names_that_do_not_run():
    with pytest.raises(ValueError, match=r"name one of its modules, such as 'encoder.blocks.0'"):
        be.BatchEnsemble(Nested(), MEMBERS, branch_at="encoder.blocks")
    with pytest.raises(ValueError, match=r"did you mean 'encoder.blocks.1'"):
        be.BatchEnsemble(Nested(), MEMBERS, branch_at="encoder.block.1")
    with pytest.raises(ValueError, match=r"is part of the layer 'layers.1.self_attn'"):
        be.BatchEnsemble(encoder(), MEMBERS, branch_at="layers.1.self_attn.out_proj")
    with pytest.raises(ValueError, match="no module from branch_at='3' on holds weights"):
        be.DeepEnsemble(
            nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Tanh(), nn.Tanh()), 2, branch_at="3"
        )


class InOrder(nn.Module):
    """Three layers, defined in one order and run in another."""

    def __init__(self, defined, run):
        super().__init__()
        self.run = run
        for name in defined:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x):
        for name in self.run:
            x = self.get_submodule(name)(x)
        return x


def test_modules_that_run_out_of_order_are_named():
    late = be.BatchEnsemble(InOrder("abc", "bca"), MEMBERS, branch_at="b")
    with pytest.raises(ValueError, match=r"'a' is defined before branch_at='b'.* runs after it"):
        late(torch.randn(5, 4))
    early = be.BatchEnsemble(InOrder("abc", "cab"), MEMBERS, branch_at="b")
    with pytest.raises(ValueError, match=r"'c' is defined after branch_at='b'.* runs before it"):
        early(torch.randn(5, 4))
    never = be.BatchEnsemble(InOrder("abc", "a"), MEMBERS, branch_at="b")
    with pytest.raises(ValueError, match="the network ran without calling it"):
        never(torch.randn(5, 4))
    both = be.BatchEnsemble(InOrder("abc", "abac"), MEMBERS, branch_at="b")
    assert both.verify(torch.randn(5, 4)).members == MEMBERS


class Skip(nn.Module):
    """A skip connection around the branch."""

    def __init__(self):
        super().__init__()
        self.down, self.middle, self.up = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x):
        skip = self.down(x)
        return self.up(torch.cat([skip, self.middle(skip)], 1))


class Reshaping(nn.Module):
    """Reads the size of the batch before the branch and reshapes by it behind."""

    def __init__(self, *, head):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 6)
        self.head = nn.Linear(2, 3) if head else nn.Identity()

    def forward(self, x):
        size = len(x)
        return self.head(self.second(self.first(x)).view(size, -1, 2)).mean(1)


def test_what_leads_around_the_branch_is_an_error():
    model = be.BatchEnsemble(Skip(), MEMBERS, branch_at="middle")
    x = torch.randn(5, 4)
    with pytest.raises(RuntimeError, match="branch before the skip connection begins"):
        model(x)
    with pytest.raises(ValueError, match="branch before the skip connection begins"):
        model.verify(x)
    assert be.BatchEnsemble(Skip(), MEMBERS, branch_at="down").verify(x).members == MEMBERS


def test_a_reshape_to_the_plain_batch_is_an_error():
    x = torch.randn(5, 4)
    with pytest.raises(ValueError, match="reshaped by the size of the batch"):
        be.BatchEnsemble(Reshaping(head=True), MEMBERS, branch_at="second")(x)
    with pytest.raises(ValueError, match=r"does not compute|reshaped by the size of the batch"):
        be.BatchEnsemble(Reshaping(head=False), MEMBERS, branch_at="second").verify(x)
