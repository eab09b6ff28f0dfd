"""Twins of the convolutions, whatever their arguments."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batchensemble.layers.base.rows import NotPerExampleError, running
from catalogue import CONVOLUTIONS, TRANSPOSED, draws
from reference import MEMBERS, OPTIONS, Case, build, check

CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
options = st.sampled_from(list(OPTIONS.values()))
few = settings(deadline=None, max_examples=25)


@st.composite
def sizes(draw):
    """Return dimensions, groups, channels in and out (of depthwise layers too)."""
    dimensions, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return dimensions, groups, groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))


@st.composite
def convolutions(draw):
    dimensions, groups, inputs, outputs = draw(sizes())
    each = partial(st.tuples, *[st.integers(1, 2)] * dimensions)
    arguments = {"groups": groups, "dilation": draw(each()), "bias": draw(st.booleans())}
    arguments["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    arguments["padding"] = draw(st.sampled_from(["same", "valid", 0, 1, 2]))
    kernels = st.sampled_from([1, 3])  # torch warns of even ones that are padded to the same size
    if arguments["padding"] != "same":
        kernels, arguments["stride"] = st.integers(1, 3), draw(each())
    kernel = draw(st.tuples(*[kernels] * dimensions))
    make = partial(CONVOLUTION[dimensions - 1], inputs, outputs, kernel, **arguments)
    return Case(make, draws((None, inputs, *[5] * dimensions)))


@st.composite
def transposed(draw):
    dimensions, groups, inputs, outputs = draw(sizes())
    each = partial(st.tuples, *[st.integers(1, 3)] * dimensions)
    arguments = {"groups": groups, "bias": draw(st.booleans()), "padding": draw(st.integers(0, 1))}
    arguments |= {"stride": draw(each()), "dilation": draw(each())}
    pairs = zip(arguments["stride"], arguments["dilation"], strict=True)
    arguments["output_padding"] = tuple(draw(st.integers(0, max(pair) - 1)) for pair in pairs)
    kernel = draw(st.tuples(*[st.integers(1, 3)] * dimensions))
    make = partial(TRANSPOSE[dimensions - 1], inputs, outputs, kernel, **arguments)
    return Case(make, draws((None, inputs, *[3] * dimensions)), inputs_first=True)


@few
@given(convolutions(), options, st.integers(1, 2))
def test_a_convolution_of_any_arguments_is_its_members(case, chosen, batch):
    torch.manual_seed(0)
    layer = case.make()
    check(case, layer, build(layer, **chosen), chosen, batch)


@few
@given(transposed(), options, st.integers(1, 2))
def test_a_transposed_convolution_of_any_arguments_is_its_members(case, chosen, batch):
    torch.manual_seed(0)
    layer = case.make()
    check(case, layer, build(layer, **chosen), chosen, batch)


@pytest.mark.parametrize("chosen", OPTIONS.values(), ids=OPTIONS)
def test_a_transposed_convolution_takes_the_size_of_its_output(chosen):
    case = TRANSPOSED["transposed conv 2d in groups"]
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
    check(case, layer, build(layer, **chosen), chosen, 2, output_size=[8, 5])


@pytest.mark.parametrize("chosen", OPTIONS.values(), ids=OPTIONS)
def test_an_image_without_its_batch_is_refused_instead_of_split_along_its_channels(chosen):
    twin = build(nn.Conv1d(MEMBERS, 2, 3), **chosen)
    with pytest.raises(NotPerExampleError, match=r"\[3, 6\]"):
        twin(torch.zeros(MEMBERS, 6))


@pytest.mark.parametrize("chosen", OPTIONS.values(), ids=OPTIONS)
def test_the_rows_come_first_in_networks_too_whose_sequences_do(chosen):
    case = CONVOLUTIONS["conv 1d"]
    layer = case.make()
    with running(rows=MEMBERS * 3):
        check(case, layer, build(layer, **chosen, batch_axis=1), chosen, 3)


@pytest.mark.parametrize("chosen", OPTIONS.values(), ids=OPTIONS)
def test_one_image_for_all_examples_is_seen_once_by_every_member(chosen):
    twin, image = build(nn.Conv1d(3, 2, 3), **chosen), torch.randn(1, 3, 6)
    with running(rows=MEMBERS * 2):
        rows = twin(image)
    expected = torch.cat([twin.member(i)(image).expand(2, -1, -1) for i in range(MEMBERS)])
    torch.testing.assert_close(rows, expected)


@pytest.mark.parametrize(("space", "calls"), [("activation", 1), ("weight", MEMBERS)])
def test_bent_channels_take_one_convolution_and_bent_kernels_one_a_member(space, calls):
    twin = build(nn.Conv2d(2, 3, 3), space=space)
    shapes = []
    convolve = twin.convolve
    twin.convolve = lambda x, *rest: shapes.append(len(x)) or convolve(x, *rest)
    twin(torch.zeros(MEMBERS * 2, 2, 5, 5))
    assert shapes == [MEMBERS * 2 // calls] * calls


@pytest.mark.parametrize(("size", "calls"), [(3, 1), (64, MEMBERS)])
def test_large_pictures_have_their_kernels_bent(size, calls):
    twin = build(nn.Conv2d(8, 8, 3))
    shapes = []
    convolve = twin.convolve
    twin.convolve = lambda x, *rest: shapes.append(len(x)) or convolve(x, *rest)
    twin(torch.zeros(MEMBERS * 2, 8, size, size))
    assert len(shapes) == calls


def test_bent_channels_are_not_kept_for_the_backward():
    layer, twin = nn.Conv2d(4, 4, 3), build(nn.Conv2d(4, 4, 3), space="activation")
    x = torch.zeros(MEMBERS * 2, 4, 6, 6, requires_grad=True)
    kept = [[], []]
    for run, sizes in zip((layer, twin), kept, strict=True):
        note = torch.autograd.graph.saved_tensors_hooks(
            lambda each, sizes=sizes: sizes.append(each.numel()) or each, lambda each: each
        )
        with note:
            y = run(x)
    rows = [[size for size in sizes if size >= y.numel()] for sizes in kept]
    assert rows == [[x.numel()], [x.numel(), y.numel()]]


def test_a_convolution_can_be_differentiated_twice():
    twin = build(nn.Conv1d(2, 2, 2), space="activation").double()
    x = torch.randn(MEMBERS * 2, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, *_: twin(x), (x, *twin.parameters()))
