"""What every twin can do: give members back, keep some, take new ones, be copied and saved."""

import copy
import io

import pytest
import torch
from torch import nn

from batchensemble.layers import RankOne, RankOneLinear
from batchensemble.layers.base.rows import NotPerExampleError, running
from batchensemble.layers.base.twin import same
from batchensemble.layers.registry import RANK_ONE as REGISTRY
from catalogue import ALL_NORMS, ATTENTIONS, RANK_ONE
from reference import MEMBERS, OPTIONS, assert_same, build, drawn, joined, parts_of

ALL = {**RANK_ONE, **ALL_NORMS}
EVERY = pytest.mark.parametrize("case", ALL.values(), ids=ALL)
BENT = pytest.mark.parametrize("case", RANK_ONE.values(), ids=RANK_ONE)
MODES = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
FIRST_AND_LAST = pytest.mark.parametrize("options", [{}, [*OPTIONS.values()][-1]], ids=["*", "+"])


def rows_of(case, batch=2):
    return joined(parts_of(case, batch), case.axes)


def assert_same_members(one, other, pairs):
    """Compare the tensors of members, given as pairs of indices."""
    for a, b in pairs:
        ours, theirs = one.member(a).state_dict(), other.member(b).state_dict()
        assert list(ours) == list(theirs)
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name])


def test_the_catalogue_has_every_class_of_the_registry_but_one_that_trains_on_a_gpu():
    kinds = {type(case.make()) for case in ALL.values()}
    assert kinds >= set(REGISTRY) - {nn.SyncBatchNorm}


# Members.


@FIRST_AND_LAST
@EVERY
def test_a_member_is_a_plain_layer_like_the_one_that_went_in(case, options):
    layer = case.make()
    next(iter(layer.parameters()), torch.zeros(1)).requires_grad_(False)
    for mode in (True, False):
        member = build(layer.train(mode), **options).member(1)
        assert type(member) is type(layer)
        assert repr(member) == repr(layer)
        assert list(member.state_dict()) == list(layer.state_dict())
        assert [each.training for each in member.modules()] == [mode] * len([*layer.modules()])
        for name, parameter in layer.named_parameters():
            own = member.get_parameter(name)
            assert (own.shape, own.dtype) == (parameter.shape, parameter.dtype)
            assert own.requires_grad == parameter.requires_grad
            assert own.is_leaf


@FIRST_AND_LAST
@EVERY
def test_a_member_shares_no_memory_with_its_twin_or_another_member(case, options):
    twin = build(case.make(), **options)
    before = copy.deepcopy(twin.state_dict())
    member, other = twin.member(0), twin.member(0)
    for value in member.state_dict().values():
        value.fill_(7)
    assert all(torch.equal(before[name], value) for name, value in twin.state_dict().items())
    assert not any((value == 7).any() for value in other.state_dict().values())


@EVERY
def test_members_can_be_trained_saved_and_run_alone(case):
    member = build(case.make()).member(2).train()
    member(*case.inputs(4))
    copied = copy.deepcopy(member)
    copied.load_state_dict(member.state_dict())
    part = case.inputs(3)
    assert_same(copied.eval()(*part), member.eval()(*part))


@EVERY
def test_a_twin_says_what_its_layer_is_and_how_many_members_it_has(case):
    layer = case.make()
    text = build(layer).extra_repr()
    assert text.startswith(layer.extra_repr() or ", members=3")
    assert "members=3" in text


@EVERY
def test_hooks_of_the_layer_are_called_by_the_twin_once_and_by_its_members(case):
    calls = []
    layer = case.make()
    layer.register_forward_pre_hook(lambda module, args: calls.append("before"))
    layer.register_forward_hook(
        lambda module, args, kwargs, output: calls.append("after"), with_kwargs=True
    )
    twin = build(layer)
    twin(*rows_of(case))
    assert calls == ["before", "after"]
    twin.member(1)(*case.inputs(2))
    assert calls == ["before", "after"] * 2


def test_a_hook_may_change_the_output_and_be_removed_from_the_plain_layer_alone():
    layer = nn.Linear(2, 2)
    handle = layer.register_forward_hook(lambda module, args, output: output * 0)
    twin = build(layer)
    handle.remove()
    x = torch.randn(MEMBERS, 2)
    assert not twin(x).any()
    assert not twin.member(0)(x).any()
    assert layer(x).all()


@EVERY
def test_while_one_member_runs_all_rows_are_its_own(case):
    twin = build(case.make()).eval()
    part = case.inputs(5)
    with running(member=1):
        assert_same(twin(*part), twin.member(1)(*part))


@pytest.mark.parametrize("case", [each for each in ALL.values() if each.output_axes == 0])
def test_a_twin_run_as_the_layer_is_written_computes_the_same(case):
    twin, rows = build(case.make()).eval(), rows_of(case)
    expected = twin(*rows)
    twin.run_as_written()
    assert_same(twin(*rows), expected)
    copied = copy.deepcopy(twin)
    assert copied.forward.__self__ is copied
    assert_same(copied(*rows), expected)


# Copies.


@FIRST_AND_LAST
@EVERY
def test_a_copy_and_a_saved_twin_compute_the_same_and_share_nothing(case, options):
    twin = build(case.make(), **options).eval()
    file = io.BytesIO()
    torch.save(twin, file)
    file.seek(0)
    rows = rows_of(case)
    for each in (copy.deepcopy(twin), torch.load(file, weights_only=False)):
        assert_same(each(*rows), twin(*rows))
        assert_same_members(each, twin, [(1, 1)])
        for value in each.state_dict().values():
            value.fill_(0)
        assert each.shell is not twin.shell
    assert any(value.any() for value in twin.state_dict().values()) or not twin.state_dict()


@FIRST_AND_LAST
@EVERY
def test_the_state_of_a_twin_makes_another_compute_the_same(case, options):
    layer = case.make()
    one, other = (build(copy.deepcopy(layer), **options).eval() for _ in range(2))
    other.load_state_dict(one.state_dict())
    rows = rows_of(case)
    assert_same(other(*rows), one(*rows))


# Fewer members, one of all, and others.


@FIRST_AND_LAST
@EVERY
def test_members_are_kept_in_the_order_that_is_asked_for(case, options):
    twin = build(case.make(), **options)
    kept = copy.deepcopy(twin)
    kept.keep([2, 0])
    assert kept.members == 2
    assert_same_members(kept, twin, [(0, 2), (1, 0)])
    parts = parts_of(case, 3, members=2)
    expected = [kept.member(i).eval()(*part) for i, part in enumerate(parts)]
    outputs = kept.eval()(*joined(parts, case.axes))
    assert_same(outputs, joined(expected, case.output_axes))
    assert {n: p.requires_grad for n, p in kept.named_parameters()} == {
        n: p.requires_grad for n, p in twin.named_parameters()
    }


@FIRST_AND_LAST
@EVERY
def test_the_average_of_members_has_the_mean_of_what_each_owns(case, options):
    twin = build(case.make(), **options)
    tensors = copy.deepcopy(twin.state_dict())
    shared = {name: value for name, value in tensors.items() if len(value) != MEMBERS}
    twin.average()
    assert twin.members == 1
    for name, value in twin.state_dict().items():
        expected = tensors[name]
        if value.shape != expected.shape:
            assert value.shape == (1, *expected.shape[1:])
            expected = expected.double().mean(0, keepdim=True).to(expected)
        torch.testing.assert_close(value, expected)
        assert name not in shared or torch.equal(value, shared[name])
    part = case.inputs(4)
    assert_same(twin.eval()(*part), twin.member(0).eval()(*part))


@MODES
@EVERY
def test_a_member_takes_the_place_of_another_exactly(case, options):
    twin = build(case.make(), **options)
    before = copy.deepcopy(twin)
    twin.put(0, before.member(2))
    assert_same_members(twin, before, [(0, 2), (1, 1), (2, 2)])


@pytest.mark.parametrize("options", [{}, {"mode": "additive"}], ids=["*", "+"])
@pytest.mark.parametrize("name", [name for name in RANK_ONE if name != "attention with extra keys"])
def test_a_layer_that_differs_by_more_than_the_fast_weights_can_is_refused_by_name(name, options):
    case = RANK_ONE[name]
    twin = build(case.make(), **options)
    twin.name = "body.layer"
    before = copy.deepcopy(twin)
    mode = options.get("mode", "multiplicative")
    sentence = rf"no {mode} change of rank 1 takes the shared \w+ of 'body.layer'"
    with pytest.raises(ValueError, match=sentence):
        twin.put(0, drawn(case.make()))
    assert_same_members(twin, before, [(0, 0), (1, 1), (2, 2)])


@BENT
def test_weights_with_zeros_are_fitted_around_them(case):
    twin = build(case.make())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name.rpartition(".")[2] not in twin.own and not name.endswith(("r", "s")):
                parameter[torch.rand(parameter.shape) < 0.3] = 0.0
    before = copy.deepcopy(twin)
    twin.put(1, before.member(0))
    assert_same_members(twin, before, [(0, 0), (1, 0), (2, 2)])


@pytest.mark.parametrize("case", ALL_NORMS.values(), ids=ALL_NORMS)
def test_a_norm_takes_any_other(case):
    twin, other = build(case.make()), drawn(case.make())
    twin.put(1, other)
    for name, value in twin.member(1).state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize(
    ("layer", "options", "name"),
    [
        (nn.LayerNorm, {"norm": "shared"}, "weight"),
        (nn.BatchNorm1d, {"norm": "shared"}, "weight"),
        (nn.PReLU, {"norm": "shared"}, "weight"),
    ],
)
def test_a_norm_that_is_shared_takes_no_other(layer, options, name):
    twin = build(layer(4), **options)
    twin.name = "norm"
    with pytest.raises(ValueError, match=f"'norm' shares its {name} among all members"):
        twin.put(1, drawn(layer(4)))


@pytest.mark.parametrize("name", ["linear", "conv 1d", "gru, both ways", "attention"])
def test_a_bias_that_is_shared_takes_no_other(name):
    twin = build(RANK_ONE[name].make(), bias="shared")
    other = twin.member(0)
    with torch.no_grad():
        next(value for key, value in other.named_parameters() if "bias" in key).add_(1.0)
    with pytest.raises(ValueError, match=r"'the network' shares its bias\w* among all members"):
        twin.put(0, other)


def test_extra_keys_of_attention_are_shared_and_take_no_others():
    twin = build(ATTENTIONS["attention with extra keys"].make())
    twin.name = "attention"
    other = twin.member(0)
    with torch.no_grad():
        other.bias_v.add_(1.0)
    with pytest.raises(ValueError, match="'attention' shares its bias_v"):
        twin.put(0, other)


# What networks read of a layer.


def test_the_settings_of_the_layer_can_be_read_from_the_twin():
    twin = build(nn.Conv2d(2, 4, 3, stride=2))
    assert (twin.kernel_size, twin.stride, twin.out_channels) == ((3, 3), (2, 2), 4)


def test_what_the_layer_does_not_have_the_twin_does_not_have_either():
    twin = build(nn.Conv2d(2, 4, 3))
    assert not hasattr(twin, "nonsense")
    with pytest.raises(
        AttributeError, match=r"RankOneAttention.* has no attribute 'q_proj_weight'"
    ):
        _ = build(nn.MultiheadAttention(4, 2, kdim=3)).q_proj_weight


@EVERY
def test_the_shell_of_a_twin_holds_no_memory(case):
    shell = build(case.make()).shell
    tensors = [*shell.parameters(), *shell.buffers()]
    assert all(tensor.is_meta for tensor in tensors)


# Layers of one's own.


class Affine(nn.Module):
    """A layer with a weight, a vector and a buffer."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 3))
        self.shift = nn.Parameter(torch.randn(4))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x, *, factor=1.0):
        self.seen += len(x)
        return x @ self.matrix.T * factor + self.shift, {"factor": factor}


class RankOneAffine(RankOne):
    matrices = ("matrix",)


@MODES
def test_a_layer_of_ones_own_needs_no_more_than_the_names_of_its_matrices(options):
    twin = drawn(RankOneAffine(Affine(), MEMBERS, **options))
    x = torch.randn(MEMBERS * 2, 3)
    outputs, extra = twin(x, factor=2.0)
    assert extra == {"factor": 2.0}
    for index, part in enumerate(x.chunk(MEMBERS)):
        member = twin.member(index)
        assert type(member) is Affine
        torch.testing.assert_close(outputs[2 * index : 2 * index + 2], member(part, factor=2.0)[0])
        bent = twin.fast_weights("matrix")
        assert torch.equal(bent.merged(index), member.matrix)
    assert set(twin.roles().values()) == {"shared", "fast"}
    assert twin.roles()["matrix_r"] == "fast"
    assert twin.seen.tolist() == [twin.member(index).seen.item() for index in range(MEMBERS)]


def test_a_twin_without_rows_to_part_is_refused_by_name():
    twin = RankOneAffine(Affine(), MEMBERS)
    twin.name = "affine"
    with pytest.raises(NotPerExampleError, match=r"'affine'.*\[4, 3\]"):
        twin(torch.zeros(4, 3))


def test_weights_are_the_same_but_for_rounding():
    weight = torch.randn(3, 4)
    assert same(weight, weight * (1 + 1e-15))
    assert not same(weight, weight * (1 + 1e-12))
    assert not same(weight, weight.T)
    assert same(torch.tensor([2]), torch.tensor([2]))
    assert not same(torch.tensor([2]), torch.tensor([3]))
    assert same(torch.zeros(0, 3), torch.zeros(0, 3))


def test_a_twin_of_one_member_is_its_layer():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    twin = RankOneLinear(layer, 1, init="ones")
    torch.testing.assert_close(twin(x), layer(x))
