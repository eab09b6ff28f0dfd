"""The arithmetic of all members at once is a loop over members with merged weights."""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from batchensemble.layers.rank_one import arithmetic as rank_one
from batchensemble.layers.rank_one.arithmetic import additive, cheaper_space, multiplicative

ALL_SAVED = {"SMALL_PRODUCT": -1, "MERGED_NUMBERS": -1}
# The backward of small and of large layers differ; so do those of many and of few weights.
LIMITS = {
    "activation": ALL_SAVED,
    "activation, member by member": {
        "SMALL_PRODUCT": -1,
        "MERGED_NUMBERS": -1,
        "SMALL_WEIGHT": -1,
        "CACHED_NUMBERS": -1,
        "PRODUCT_NUMBERS": 2 * 10,
    },
    "activation, few rows": {},
    "weight": ALL_SAVED,
    "weight, member by member": {
        "SMALL_PRODUCT": -1,
        "MERGED_NUMBERS": -1,
        "SMALL_WEIGHT": -1,
        "CACHED_NUMBERS": -1,
    },
}
ADDITIVE = {
    "rank 1": {"SMALL_PRODUCT": -1, "MERGED_NUMBERS": -1},
    "rank 2": {"SMALL_PRODUCT": -1, "MERGED_NUMBERS": -1},
    "rank 3": {},
}
MERGED = {"weight, merged": {}, "rank 2, merged": {"WEIGHT_SPACE_FACTOR": 0}}
KINDS = [*LIMITS, *ADDITIVE, *MERGED]
BIASES = ["per member", "shared", "none"]


def draw(kind, bias, members=3, batch=4, inputs=5, outputs=2):
    """Return x, weight, r, s and bias at random, in float64."""
    torch.manual_seed(0)
    vectors = (members, int(kind[5])) if kind.startswith("rank") else (members,)
    shapes = [(members, batch, inputs), (outputs, inputs), (*vectors, inputs), (*vectors, outputs)]
    if bias != "none":
        shapes.append((members, outputs) if bias == "per member" else (outputs,))
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def at_once(kind, *tensors):
    if kind.startswith("rank"):
        return additive(*tensors)
    return multiplicative(*tensors, space=kind.partition(",")[0])


@contextmanager
def limits(kind):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (LIMITS | ADDITIVE | MERGED)[kind].items():
            patch.setattr(rank_one, name, value)
        yield


def one_by_one(x, weight, r, s, bias=None):
    outputs = []
    for member in range(len(x)):
        if r.dim() == 2:
            merged = weight * torch.outer(s[member], r[member])
        else:
            merged = weight + s[member].T @ r[member]
        own = bias[member] if bias is not None and bias.dim() == 2 else bias
        outputs.append(F.linear(x[member], merged, own))
    return torch.stack(outputs)


def assert_same(ours, reference):
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


def assert_same_with_gradients(kind, tensors):
    reference = one_by_one(*tensors)
    weights = torch.arange(1.0, reference.numel() + 1, dtype=torch.float64).view_as(reference)
    leaves = [tensor for tensor in tensors if tensor.requires_grad]
    with limits(kind):
        ours = at_once(kind, *tensors)
        gradients = torch.autograd.grad((ours * weights).sum(), leaves)
        with torch.no_grad():
            assert_same(at_once(kind, *tensors), reference)
    assert_same(ours, reference)
    expected = torch.autograd.grad((reference * weights).sum(), leaves)
    for own, other in zip(gradients, expected, strict=True):
        assert_same(own, other)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_the_loop(kind, bias):
    assert_same_with_gradients(kind, draw(kind, bias))


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind, bias):
    with limits(kind):
        assert torch.autograd.gradcheck(lambda *tensors: at_once(kind, *tensors), draw(kind, bias))


@pytest.mark.parametrize("kind", [kind for kind in LIMITS if kind != "activation, few rows"])
def test_nothing_but_the_inputs_is_kept_for_the_backward(kind):
    tensors = draw(kind, "per member")
    kept = []
    with limits(kind), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda each: each):
        at_once(kind, *tensors)
    assert {each.data_ptr() for each in kept} == {each.data_ptr() for each in tensors[:4]}


@pytest.mark.parametrize(
    ("members", "batch", "more"), [(2, 4, True), (64, 4096, False), (4, 8192, False)]
)
def test_more_is_kept_where_it_is_small(members, batch, more):
    shapes = (members, batch, 64), (64, 64), (members, 64), (members, 64)
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda each: each):
        multiplicative(*tensors, space="activation")
    assert (len({each.data_ptr() for each in kept}) > 4) == more


LAYOUTS = {
    "contiguous": lambda x: x,
    "batch first in memory": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "features first in memory": lambda x: x.mT.contiguous().mT,
    "one input for all members": lambda x: x[:1].expand_as(x),
    "one example for all rows": lambda x: x[:, :1].expand_as(x),
    "every second row": lambda x: x.repeat_interleave(2, 1)[:, ::2],
}


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    bias=st.sampled_from(BIASES),
    layout=st.sampled_from(sorted(LAYOUTS)),
    members=st.integers(1, 4),
    batch=st.integers(0, 4),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
)
def test_any_shape_and_memory_layout_gives_the_loop(
    kind, bias, layout, members, batch, inputs, outputs
):
    x, *parameters = draw(kind, bias, members, batch, inputs, outputs)
    if batch == 0 and layout == "one example for all rows":
        layout = "contiguous"
    assert_same_with_gradients(kind, [LAYOUTS[layout](x), *parameters])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", range(5))
def test_a_frozen_tensor_changes_no_other_gradient(kind, frozen):
    tensors = draw(kind, "per member")
    tensors[frozen].requires_grad_(False)
    assert_same_with_gradients(kind, tensors)


@pytest.mark.parametrize("kind", [kind for kind in LIMITS if kind != "activation, few rows"])
def test_a_second_derivative_is_refused(kind):
    x, *parameters = draw(kind, "none")
    with limits(kind):
        y = at_once(kind, x, *parameters)
        [first] = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("kind", ["activation, few rows", *ADDITIVE, *MERGED])
def test_plain_autograd_can_be_differentiated_twice(kind):
    tensors = draw(kind, "per member", batch=2)
    with limits(kind):
        assert torch.autograd.gradgradcheck(lambda *each: at_once(kind, *each), tensors)


def test_one_input_for_all_members_is_multiplied_by_the_shared_weight_once():
    x = torch.randn(1, 50, 100).expand(8, 50, 100)
    weight, r, s = torch.randn(200, 100), torch.randn(8, 1, 100), torch.randn(8, 1, 200)
    outputs, operations = [], []
    for each in (x, x.contiguous()):
        with FlopCounterMode(display=False) as counter:
            outputs.append(additive(each, weight, r, s))
        operations.append(counter.get_total_flops())
    assert operations[0] < operations[1] / 6
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


def test_wide_layers_with_few_rows_bend_activations_and_narrow_ones_with_many_the_weight():
    assert cheaper_space(1, 512, 512) == "activation"
    assert cheaper_space(4096, 64, 64) == "weight"


@pytest.mark.parametrize("batch", [1, 100])
def test_the_choice_of_the_space_changes_no_number(batch):
    tensors = draw("weight", "per member", batch=batch, inputs=20, outputs=20)
    for space in ("activation", "weight"):
        assert_same(multiplicative(*tensors), multiplicative(*tensors, space=space))


def test_both_choices_happen_in_the_test_above():
    assert {cheaper_space(batch, 20, 20) for batch in (1, 100)} == {"activation", "weight"}
