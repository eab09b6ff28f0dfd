"""Merged weights that are kept are never other than those that would be made now."""

import copy
import io
import threading

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from batchensemble.layers import RankOneConv1D, RankOneConvolution, RankOneLinear
from batchensemble.layers import RankOneTransposedConvolution as Transposed
from batchensemble.layers.modes import evaluating
from batchensemble.layers.rank_one.merging import Kept, place
from batchensemble.training.optim.buffers import in_buffers

MEMBERS = 3
WEIGHT = {"space": "weight", "init": "normal"}
LAYERS = {
    "linear": lambda: RankOneLinear(nn.Linear(4, 6), MEMBERS, init="normal"),
    "narrow": lambda: RankOneLinear(nn.Linear(7, 3, bias=False), MEMBERS, init="normal"),
    "shared bias": lambda: RankOneLinear(nn.Linear(4, 6), MEMBERS, init="normal", bias="shared"),
    "additive": lambda: RankOneLinear(nn.Linear(4, 6), MEMBERS, mode="additive", rank=2, alpha=3.0),
    "Conv1D": lambda: RankOneConv1D(Conv1D(6, 4), MEMBERS, init="normal"),
    "additive Conv1D": lambda: RankOneConv1D(Conv1D(6, 4), MEMBERS, mode="additive"),
    "convolution": lambda: RankOneConvolution(nn.Conv2d(4, 6, 3, groups=2), MEMBERS, **WEIGHT),
    "additive convolution": lambda: RankOneConvolution(
        nn.Conv1d(4, 6, 3, stride=2), MEMBERS, mode="additive"
    ),
    "transposed": lambda: Transposed(nn.ConvTranspose1d(4, 6, 2), MEMBERS, **WEIGHT),
}
FREEZE = [False, True]
KINDS = ["linear", "additive", "additive Conv1D", "convolution"]


def make(name, frozen=False):
    torch.manual_seed(0)
    twin = LAYERS[name]().eval()
    if frozen:
        twin.freeze()
    return twin


def rows(twin, batch=5):
    weight = twin.weight
    features = twin.in_features if weight.dim() == 2 else twin.in_channels
    return torch.randn(MEMBERS * batch, features, *[7] * (weight.dim() - 2), dtype=weight.dtype)


def assert_members(twin, **tolerance):
    """Compare the layer without gradients with the loop over its members; twice, to hit."""
    for _ in range(2):
        x = rows(twin)
        with torch.no_grad():
            y = twin(x)
            parts = x.view(twin.members, -1, *x.shape[1:]).unbind()
            loop = torch.cat([twin.member(m)(part) for m, part in enumerate(parts)])
        torch.testing.assert_close(y, loop, **({"rtol": 1e-10, "atol": 1e-10} | tolerance))


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


@pytest.mark.parametrize("frozen", FREEZE)
def test_evaluation_is_the_loop_over_the_members_with_weights_made_once(name, frozen):
    twin = make(name, frozen)
    assert_members(twin)
    first = twin._kept
    assert first is not None
    assert_members(twin)
    assert twin._kept is first


def step(optimiser):
    def change(twin):
        optimiser = make_optimiser(twin.parameters())
        with torch.enable_grad():
            twin(rows(twin)).square().sum().backward()
        optimiser.step()

    make_optimiser = optimiser
    return change


def edit(name, function):
    def change(twin):
        with torch.no_grad():
            function(getattr(twin, name))

    return change


def load(twin):
    state = {name: value + 1 for name, value in twin.state_dict().items()}
    twin.load_state_dict(state)


def assign(twin):
    state = {name: nn.Parameter(value + 1) for name, value in twin.state_dict().items()}
    twin.load_state_dict(state, assign=True)


def replace_data(twin):
    for _ in range(3):  # memory that was given back comes again at the same address
        for parameter in twin.parameters():
            parameter.data = parameter.data * 1.5


def replace_parameter(twin):
    for name in ("weight", "r", "s"):
        setattr(twin, name, nn.Parameter(getattr(twin, name).detach() * 1.5))


def put(twin):
    with torch.no_grad():
        twin.put(0, twin.member(2))


def flatten(twin):
    group = {"params": list(twin.parameters()), "lr": 0.1, "weight_decay": 0.0}
    with in_buffers([group]) as [buffer]:
        buffer.values.add_(1.0)


def swap(twin):
    swapped = twin.r.detach().flip(0).contiguous()
    torch.utils.swap_tensors(twin.r, nn.Parameter(swapped))


SEEN = {
    "a step of SGD": step(lambda p: torch.optim.SGD(p, lr=0.1)),
    "a step of Adam, fused": step(lambda p: torch.optim.Adam(p, lr=0.1, fused=True)),
    "a step of Adam, foreach": step(lambda p: torch.optim.Adam(p, lr=0.1, foreach=True)),
    "a state dictionary": load,
    "a state dictionary, assigned": assign,
    "an edit of the weight": edit("weight", lambda t: t.mul_(2)),
    "an edit of one number": edit("s", lambda t: t.view(-1)[3:4].add_(1)),
    "an edit of r": edit("r", lambda t: t.copy_(torch.randn_like(t))),
    "an edit through a view": edit("r", lambda t: t.detach().view(-1)[0].fill_(3)),
    "data replaced": replace_data,
    "parameters replaced": replace_parameter,
    "parameters swapped": swap,
    "a member set": put,
    "float and back": lambda twin: twin.float().double(),
    "memory shared with other processes": lambda twin: twin.share_memory(),
    "members kept": lambda twin: twin.keep([2, 0, 1]),
}
UNSEEN = {
    "weight": edit("weight", lambda t: t.data.mul_(2)),
    "one number of the weight": edit("weight", lambda t: t.data.view(-1)[-1].add_(1)),
    "r": edit("r", lambda t: t.data[1].mul_(-1)),
    "s": edit("s", lambda t: t.data[0].add_(1)),
    "from numpy": edit("s", lambda t: t.detach().numpy().__imul__(3)),
    "the optimiser of fit": flatten,
}


@pytest.mark.parametrize("change", SEEN)
@pytest.mark.parametrize("frozen", FREEZE)
@pytest.mark.parametrize("name", KINDS)
def test_what_changes_the_weights_changes_the_outputs(name, frozen, change):
    twin = make(name, frozen)
    assert_members(twin)
    SEEN[change](twin)
    assert_members(twin)


@pytest.mark.parametrize("change", UNSEEN)
@pytest.mark.parametrize("name", KINDS)
def test_so_does_what_leaves_no_trace(name, change):
    twin = make(name)
    assert_members(twin)
    UNSEEN[change](twin)
    assert_members(twin)


@pytest.mark.parametrize("change", UNSEEN)
def test_what_leaves_no_trace_asks_for_another_freeze(change):
    twin = make("linear", frozen=True)
    assert_members(twin)
    UNSEEN[change](twin)
    twin.freeze()
    assert_members(twin)


def test_a_live_bias_is_read_at_each_call():
    twin = make("linear", frozen=True)
    assert_members(twin)
    twin.bias.data.add_(1)
    assert_members(twin)


@pytest.mark.parametrize("frozen", FREEZE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", KINDS)
def test_another_type_has_other_weights(name, frozen, dtype):
    twin = make(name, frozen)
    assert_members(twin)
    twin.to(dtype)
    assert_members(twin, rtol=0.02, atol=0.05)
    assert twin._kept.weights.dtype == dtype


def test_nan_and_the_sign_of_zero_are_compared_too():
    twin = make("linear")
    twin.r.data.fill_(torch.nan)
    x = rows(twin)
    with torch.no_grad():
        twin(x)
        kept = twin._kept
        assert twin(x).isnan().all()
        assert twin._kept is kept
        twin.r.data.zero_()
        twin(x)
        twin.r.data.neg_()
        twin(x)
    assert (1 / twin._kept.weights).max() == torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(2, 3), (3, 5), (1, 1), (0, 3)])
def test_each_bit_of_any_shape_is_compared(dtype, shape):
    for source in (torch.randn(shape, dtype=dtype), torch.randn(shape[::-1], dtype=dtype).t()):
        kept = Kept(torch.zeros(1), [source], [place(source)], [source.clone()])
        assert kept.are_of([place(source)])
        for index in range(source.numel()):
            lying = source if source.is_contiguous() else source.t()
            lying.data.view(-1)[index].add_(1)
            assert not kept.are_of([place(source)])
            kept = Kept(torch.zeros(1), [source], [place(source)], [source.clone()])


@pytest.mark.parametrize("frozen", FREEZE)
@pytest.mark.parametrize("how", ["deepcopy", "copy", "pickle"])
@pytest.mark.parametrize("name", KINDS)
def test_a_copy_keeps_nothing_and_merges_its_own(name, how, frozen):
    twin = make(name, frozen)
    assert_members(twin)
    if how == "pickle":
        file = io.BytesIO()
        torch.save(twin, file)
        assert file.tell() < 40_000
        file.seek(0)
        other = torch.load(file, weights_only=False)
    else:
        other = getattr(copy, how)(twin)
    assert other._kept is None
    assert other.frozen == frozen
    replace_parameter(other)
    assert_members(other)
    assert_members(twin)


@pytest.mark.parametrize("frozen", FREEZE)
def test_a_replica_with_other_parameters_does_not_use_what_was_kept(frozen):
    twin = make("linear", frozen)
    assert_members(twin)
    replica = twin.__new__(type(twin))
    replica.__dict__ = {**twin.__dict__, "_parameters": dict(twin._parameters)}
    replica._parameters["s"] = twin.s.detach() * 2
    x = rows(twin)
    with torch.no_grad():
        assert not torch.allclose(replica(x), twin(x))
    assert_members(twin)


@pytest.mark.parametrize("frozen", FREEZE)
def test_a_call_with_other_weights_uses_them(frozen):
    twin = make("linear", frozen)
    assert_members(twin)
    other = make("linear")
    load(other)
    x = rows(twin)
    with torch.no_grad():
        called = torch.func.functional_call(twin, other.state_dict(), (x,))
        torch.testing.assert_close(called, other(x))
    assert_members(twin)


def test_nothing_kept_is_state():
    twin = make("linear")
    before = list(twin.state_dict())
    assert_members(twin)
    assert list(twin.state_dict()) == before
    assert len(list(twin.buffers())) == 0


def test_training_gives_the_memory_back():
    twin = make("linear", frozen=True)
    assert_members(twin)
    twin.train()
    assert twin._kept is None
    assert not twin.frozen


def test_evaluation_amid_training_leaves_nothing_behind():
    net = nn.Sequential(make("linear"))
    net.train()
    with evaluating(net):
        assert_members(net[0])
        assert net[0]._kept is not None
    assert net[0]._kept is None


def test_gradients_are_never_those_of_kept_weights(name):
    twin = make(name)
    assert_members(twin)
    twin(rows(twin)).sum().backward()
    assert all(p.grad is not None for p in (twin.weight, twin.r, twin.s))


def test_training_mode_without_gradients_keeps_nothing():
    twin = make("linear").train()
    with torch.no_grad():
        twin(rows(twin))
    assert twin._kept is None


def test_torch_func_sees_the_layer_itself():
    twin = make("linear")
    assert_members(twin)
    x = rows(twin)
    with torch.no_grad():
        one_by_one = torch.func.vmap(twin)(torch.stack([x, x + 1]))
        torch.testing.assert_close(one_by_one[1], twin(x + 1))


@pytest.mark.parametrize("frozen", FREEZE)
def test_autocast_has_its_own_type(frozen):
    torch.set_default_dtype(torch.float32)
    twin = make("linear", frozen).float()
    assert_members(twin, rtol=1e-4, atol=1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert twin(rows(twin)).dtype == torch.bfloat16
    assert_members(twin, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frozen", FREEZE)
def test_inference_mode_and_no_grad_keep_the_same(name, frozen):
    twin = make(name, frozen)
    x = rows(twin)
    with torch.inference_mode():
        first = twin(x)
        kept = twin._kept
    assert kept is not None
    with torch.no_grad():
        torch.testing.assert_close(twin(x), first)
    assert twin._kept is kept


@pytest.mark.parametrize("frozen", FREEZE)
def test_parameters_made_in_inference_mode_are_compared(frozen):
    with torch.inference_mode():
        twin = make("linear", frozen)
        assert_members(twin)
        twin.r.add_(1.0)  # which leaves no trace there
        assert_members(twin)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.filterwarnings("ignore")  # torch.jit warns of itself
@pytest.mark.parametrize("frozen", FREEZE)
def test_a_trace_holds_the_weights_and_not_what_was_kept(frozen):
    twin = make("linear", frozen)
    assert_members(twin)
    x = rows(twin).view(MEMBERS, 5, -1)
    with torch.no_grad():
        traced = torch.jit.trace(twin, x)
        torch.testing.assert_close(traced(x), twin(x))


@pytest.mark.parametrize("frozen", FREEZE)
def test_threads_get_whole_weights(frozen):
    twin = make("linear", frozen)
    x = rows(twin)
    wrong = []
    allowed = []
    for factor in (1.0, 2.0):
        other = make("linear")
        other.weight.data.mul_(factor)
        with torch.no_grad():
            allowed.append(other(x))

    def read():
        with torch.no_grad():
            for _ in range(200):
                y = twin(x)
                if not any(torch.allclose(y, each) for each in allowed):
                    wrong.append(y)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    one, two = twin.weight.data, twin.weight.data * 2
    for _ in range(100):
        twin.weight.data = two
        twin.weight.data = one
        twin.forget()
    for reader in readers:
        reader.join()
    assert not wrong
    assert_members(twin)


def test_one_input_for_all_members_is_not_multiplied_by_each_members_weight_in_additive_mode():
    twin = make("additive", frozen=True)
    x = torch.randn(1, 5, 4).expand(MEMBERS, 5, 4)
    with torch.no_grad():
        y = twin(x)
        expected = torch.stack([twin.member(m)(x[m]) for m in range(MEMBERS)])
    torch.testing.assert_close(y, expected)
    assert twin._kept is None


@pytest.mark.parametrize("space", ["activation", "weight"])
def test_space_decides_for_evaluation_too(space):
    twin = RankOneLinear(nn.Linear(4, 6), MEMBERS, space=space).eval()
    assert_members(twin)
    assert (twin._kept is not None) == (space == "weight")


@pytest.mark.parametrize("rows_then", [1, 10_000])
def test_a_frozen_layer_stays_with_its_first_choice(rows_then):
    twin = RankOneLinear(nn.Linear(256, 256), MEMBERS).eval()
    twin.freeze()
    with torch.no_grad():
        twin(torch.randn(MEMBERS, rows_then, 256))
        kept = twin._kept
        twin(torch.randn(MEMBERS, 300, 256))
    assert (kept is not None) == (rows_then > 1)
    assert twin._kept is kept


def test_a_frozen_layer_chooses_for_the_rows_it_was_told_of():
    twin = RankOneLinear(nn.Linear(256, 256), MEMBERS).eval()
    picture = RankOneConvolution(nn.Conv2d(2, 2, 3), MEMBERS).eval()
    for layer, x in ((twin, torch.randn(MEMBERS, 256)), (picture, torch.randn(MEMBERS, 2, 3, 3))):
        for rows_of_a_member, merges in ((1, False), (10_000, True)):
            layer.freeze(rows_of_a_member)
            with torch.no_grad():
                layer(x)
            assert (layer._kept is not None) == merges


@pytest.mark.parametrize("frozen", FREEZE)
def test_no_rows_and_one_member_are_no_exception(frozen):
    for members in (1, 2):
        twin = RankOneLinear(nn.Linear(4, 6), members, init="normal").eval()
        if frozen:
            twin.freeze()
        with torch.no_grad():
            assert twin(torch.empty(0, 4)).shape == (0, 6)
            x = torch.randn(members * 2, 4)
            loop = torch.cat([twin.member(m)(part) for m, part in enumerate(x.chunk(members))])
            torch.testing.assert_close(twin(x), loop)
