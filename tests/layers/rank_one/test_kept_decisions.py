"""What a layer decided once for a shape never outlives what it was decided on."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from batchensemble.layers import RankOneLinear
from batchensemble.training.optim.buffers import in_buffers

MEMBERS = 3
# By which arithmetic, and how many rows a member has and the layer inputs and outputs.
SHAPES = {"activation": (4, 6, 5), "weight": (40, 6, 5), "narrow weight": (40, 7, 2)}


@pytest.fixture(params=SHAPES)
def decided(request):
    """Return a layer that has decided, and an input of the shape that it decided for."""
    torch.manual_seed(0)
    batch, inputs, outputs = SHAPES[request.param]
    twin = RankOneLinear(nn.Linear(inputs, outputs), MEMBERS, init="normal").double()
    x = torch.randn(MEMBERS, batch, inputs, dtype=torch.float64)
    twin(x)
    assert twin._chosen[0] == x.shape
    assert_is_the_loop(twin, x)
    return twin, x


def assert_is_the_loop(twin, x, **tolerance):
    """Compare outputs and gradients with those of the members one after the other."""
    x = x.detach().clone().requires_grad_()
    leaves = [x, *(each for each in twin.parameters() if each.requires_grad)]
    slow = torch.stack([twin.run_member(m, each) for m, each in enumerate(x.unbind())])
    fast = twin(x)
    weights = torch.linspace(-1, 1, slow.numel(), dtype=torch.float64).view_as(slow).to(slow.dtype)
    for ours, theirs in [
        (fast, slow),
        *zip(
            torch.autograd.grad((fast * weights).sum(), leaves),
            torch.autograd.grad((slow * weights).sum(), leaves),
            strict=True,
        ),
    ]:
        torch.testing.assert_close(ours, theirs, **({"rtol": 1e-10, "atol": 1e-10} | tolerance))
    with torch.no_grad():
        torch.testing.assert_close(twin(x), slow, **({"rtol": 1e-10, "atol": 1e-10} | tolerance))


def load(twin):
    twin.load_state_dict({name: value + 1 for name, value in twin.state_dict().items()})


def replace_parameters(twin):
    for name in ("weight", "r", "s", "bias"):
        setattr(twin, name, nn.Parameter(getattr(twin, name).detach() * 1.5))


def train_in_buffers(twin):
    group = {"params": list(twin.parameters()), "lr": 0.1, "weight_decay": 0.0}
    with in_buffers([group]) as [buffer]:
        buffer.values.add_(0.5)


CHANGES = {
    "a state dictionary": load,
    "new parameters": replace_parameters,
    "data replaced": lambda twin: setattr(twin.weight, "data", twin.weight.data * 2),
    "the buffers of the optimiser": train_in_buffers,
    "members in another order": lambda twin: twin.keep([2, 0, 1]),
    "the shared weight frozen": lambda twin: twin.weight.requires_grad_(False),
    "fast weights frozen": lambda twin: (
        twin.r.requires_grad_(False),
        twin.s.requires_grad_(False),
    ),
    "the bias frozen": lambda twin: twin.bias.requires_grad_(False),
    "all frozen": lambda twin: twin.requires_grad_(False),
    "frozen and back": lambda twin: twin.requires_grad_(False).requires_grad_(True),
    "evaluation": lambda twin: twin.eval(),
    "evaluation and back": lambda twin: twin.eval().train(),
    "frozen in evaluation": lambda twin: twin.eval().freeze(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_layer_changes_what_it_computes(decided, change):
    twin, x = decided
    CHANGES[change](twin)
    for _ in range(2):
        assert_is_the_loop(twin, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_type_is_computed_in_that_type_and_another_input_refused(decided, dtype):
    twin, x = decided
    twin.to(dtype)
    with pytest.raises(ValueError, match=r"holds weights of type .*, got an input of type"):
        twin(x)
    loose = {"rtol": 0.05, "atol": 0.3} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    assert_is_the_loop(twin, x.to(dtype), **loose)
    assert twin(x.to(dtype)).dtype == dtype
    assert_is_the_loop(twin.double(), x)


@pytest.mark.parametrize("indices", [[0], [1, 0]])
def test_fewer_members_refuse_the_rows_of_more(decided, indices):
    twin, x = decided
    twin.keep(indices)
    own = x[: len(indices)]
    assert_is_the_loop(twin, own)
    y = twin(x) if x.shape[0] % len(indices) == 0 else None
    if y is not None:  # as many rows of fewer members
        rows = x.reshape(len(indices), -1, x.shape[-1])
        torch.testing.assert_close(y.reshape(len(indices), -1, y.shape[-1]), twin(rows))
    else:
        with pytest.raises(ValueError, match="own"):
            twin(x)


def test_what_all_members_share_is_the_same_for_all_and_for_each_again(decided):
    twin, x = decided
    y = twin(x)
    twin.run_for_all("a reason")
    torch.testing.assert_close(twin(x), twin.run_member(0, x))
    twin.run_for_each()
    torch.testing.assert_close(twin(x), y)
    twin.share_with_all("a reason")
    torch.testing.assert_close(twin(x), nn.functional.linear(x, twin.weight, twin.bias[0]))


def test_other_shapes_and_the_first_one_again(decided):
    twin, x = decided
    for other in (x[:, :1], x[:, :0], x.repeat(1, 50, 1), x):
        assert_is_the_loop(twin, other)
    rows = twin(x.flatten(0, 1))
    torch.testing.assert_close(rows.view(MEMBERS, -1, rows.shape[-1]), twin(x))
    with pytest.raises(ValueError, match="takes"):
        twin(torch.randn(MEMBERS * 2, 9, dtype=torch.float64))


@pytest.mark.usefixtures("as_users_run_it")
def test_a_weight_of_another_shape_is_not_multiplied_by_the_old_choice(decided):
    twin, x = decided
    twin.weight = nn.Parameter(torch.randn(twin.out_features, 11, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        twin(x)


def test_autocast_computes_in_its_own_type_and_leaves_no_trace(decided):
    twin, x = decided
    twin, x = twin.float(), x.float()
    twin(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert twin(x).dtype == torch.bfloat16
        assert torch.autograd.grad(twin(x).sum(), twin.weight)[0].dtype == torch.float32
    assert twin(x).dtype == torch.float32
    assert_is_the_loop(twin.double(), x.double())


def test_a_step_under_autocast_is_seen_by_what_evaluation_had_merged(decided):
    twin, x = decided
    twin, x = twin.float().eval(), x.float()
    twin.freeze()
    optimiser = torch.optim.Adam(twin.parameters(), lr=0.1, fused=True)  # which leaves no trace
    with torch.no_grad():
        before = twin(x)
    with torch.autocast("cpu", torch.bfloat16):
        twin(x).square().sum().backward()
    optimiser.step()
    with torch.no_grad():
        after = twin(x)
        twin.freeze()
        torch.testing.assert_close(after, twin(x))
    assert not torch.allclose(before, after)


def test_other_options_are_another_arithmetic():
    twin = RankOneLinear(nn.Linear(4, 5), MEMBERS, mode="additive", init="normal").double()
    x = torch.randn(MEMBERS, 2, 4, dtype=torch.float64)
    multiplicative = RankOneLinear(nn.Linear(4, 5), MEMBERS).double()
    multiplicative(x)
    for name in ("options", "r", "s", "weight", "bias"):
        setattr(multiplicative, name, getattr(twin, name))
    torch.testing.assert_close(multiplicative(x), twin(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, as forward mode starts
def test_torch_func_and_forward_mode_differentiate_the_layer_itself(decided):
    twin, x = decided
    weights = dict(twin.named_parameters())

    def loss(values, x):
        return torch.func.functional_call(twin, values, (x,)).square().sum()

    found = torch.func.grad(loss)(weights, x)
    expected = torch.autograd.grad(twin(x).square().sum(), list(weights.values()))
    torch.testing.assert_close(list(found.values()), list(expected))
    each = torch.func.vmap(twin)(torch.stack([x, 2 * x]))
    torch.testing.assert_close(each[1], twin(2 * x))
    direction = torch.randn_like(x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(twin(forward_ad.make_dual(x, direction))).tangent
    with torch.no_grad():  # the layer is affine in its input
        torch.testing.assert_close(tangent, twin(x + direction) - twin(x))
    assert_is_the_loop(twin, x)


def test_small_layers_can_be_differentiated_twice(decided):
    twin, x = decided
    x = x[:, :3].clone().requires_grad_()
    slow = torch.stack([twin.run_member(m, each) for m, each in enumerate(x.unbind())])
    leaves = [x, *twin.parameters()]
    seconds = []
    for y in (twin(x), slow):
        firsts = torch.autograd.grad(y.pow(3).sum(), leaves, create_graph=True)
        seconds.append(torch.autograd.grad(sum(each.square().sum() for each in firsts), leaves))
    torch.testing.assert_close(*seconds)


def test_what_is_made_of_the_weight_itself_gets_the_gradient_of_both_ways(decided):
    twin, x = decided
    expected, found = [], []
    for run, into in ((twin, found), (one_by_one(twin), expected)):
        first = x[:, :3] * twin.weight.sum()
        [gradient] = torch.autograd.grad(run(first).square().sum(), twin.weight, create_graph=True)
        into += [gradient, *torch.autograd.grad(gradient.square().sum(), [twin.weight, twin.r])]
    torch.testing.assert_close(found, expected)


def one_by_one(twin):
    return lambda x: torch.stack([twin.run_member(m, each) for m, each in enumerate(x.unbind())])


def test_the_backward_can_run_twice_and_notices_weights_that_were_changed_between(decided):
    twin, x = decided
    loss = twin(x).square().sum()
    first = torch.autograd.grad(loss, list(twin.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(twin.parameters()))
    torch.testing.assert_close(first, second)
    loss = twin(x).square().sum()
    with torch.no_grad():
        twin.r.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("how", ["deepcopy", "copy", "pickle"])
def test_a_copy_decides_for_itself(decided, how):
    twin, x = decided
    if how == "pickle":
        file = io.BytesIO()
        torch.save(twin, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    else:
        other = getattr(copy, how)(twin)
    assert other._chosen == (None, None, None)
    replace_parameters(other)
    assert_is_the_loop(other, x)
    assert_is_the_loop(twin, x)


def test_hooks_are_called_and_hear_the_gradients(decided):
    twin, x = decided
    heard = []
    twin.register_forward_pre_hook(lambda _, args: heard.append("before"))
    twin.register_forward_hook(lambda module, args, y: 2 * y)
    twin.register_full_backward_hook(lambda *_: heard.append("backward"))
    twin.r.register_hook(lambda gradient: heard.append("r"))
    x = x.clone().requires_grad_()
    y = twin(x)
    y.sum().backward()
    assert heard[0] == "before"
    assert set(heard[1:]) == {"r", "backward"}
    with torch.no_grad():
        plain = twin.forward(x)
    torch.testing.assert_close(y, 2 * plain)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.filterwarnings("ignore")  # torch.jit warns of itself
def test_a_trace_with_gradients_holds_operations_of_torch_alone(decided):
    twin, x = decided
    traced = torch.jit.trace(twin, x)
    assert "PythonOp" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(2 * x), twin(2 * x))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.filterwarnings("ignore")
def test_compiled_graphs_are_whole_and_of_what_the_layer_is_now(decided):
    twin, x = decided
    compiled = torch.compile(twin, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), twin(x))
    replace_parameters(twin)
    torch.testing.assert_close(compiled(x), twin(x))
    other = x.repeat(1, 30, 1)
    torch.testing.assert_close(compiled(other), twin(other))


def test_a_row_axis_that_is_not_the_first_is_never_taken_for_the_members():
    twin = RankOneLinear(nn.Linear(4, 5), MEMBERS, init="normal", batch_axis=1).double()
    x = torch.randn(MEMBERS, 2 * MEMBERS, 4, dtype=torch.float64)  # as many steps as members
    for _ in range(2):
        parts = x.chunk(MEMBERS, 1)
        slow = torch.cat([twin.run_member(m, part) for m, part in enumerate(parts)], 1)
        torch.testing.assert_close(twin(x), slow)
