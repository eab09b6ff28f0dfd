"""Twins of the norm layers and of ``PReLU``: each member's own weights and statistics."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batchensemble.layers import MemberBatchNorm, MemberChannelNorm, MemberNorm, MemberPReLU
from batchensemble.layers.base.rows import AmbiguousAxisError, NotPerExampleError, running
from catalogue import ALL_NORMS, NORMS, STATISTICS, WITHOUT_STATISTICS, draws
from reference import MEMBERS, Case, build, check, drawn, gradcheck

owners = st.sampled_from(["member", "shared"])
OWNERS = pytest.mark.parametrize("owner", ["member", "shared"])


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@OWNERS
@pytest.mark.parametrize("case", ALL_NORMS.values(), ids=ALL_NORMS)
def test_a_norm_is_its_members_and_so_are_its_gradients_and_statistics(case, owner, training):
    layer = case.make()
    check(case, layer, build(layer, norm=owner).train(training), {}, 4)


@pytest.mark.parametrize(
    ("name", "batch"),
    # Torch itself has no instance norm of nothing, and no statistics of one number.
    [(name, 0) for name in ALL_NORMS if not name.startswith("instance")]
    + [(name, 1) for name in ALL_NORMS if name not in ("batch norm 1d", *WITHOUT_STATISTICS)],
)
@OWNERS
def test_a_norm_takes_no_example_or_one(name, batch, owner):
    layer = ALL_NORMS[name].make()
    check(ALL_NORMS[name], layer, build(layer, norm=owner), {}, batch)


@pytest.mark.parametrize("case", STATISTICS.values(), ids=STATISTICS)
def test_a_norm_that_evaluates_takes_one_example(case):
    layer = case.make()
    check(case, layer, build(layer).eval(), {}, 1)


@OWNERS
@pytest.mark.parametrize("case", ALL_NORMS.values(), ids=ALL_NORMS)
def test_the_gradients_of_a_norm_are_its_slopes(case, owner):
    assert gradcheck(case, build(case.make(), norm=owner).eval())


@pytest.mark.parametrize(
    "name", ["batch norm 1d", "batch norm 2d", "instance norm 1d that tracks", *WITHOUT_STATISTICS]
)
def test_the_gradients_of_a_norm_in_training_are_its_slopes(name):
    assert gradcheck(ALL_NORMS[name], build(ALL_NORMS[name].make()).train())


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
    st.lists(st.integers(1, 3), max_size=2),
    st.booleans(),
    st.booleans(),
    owners,
)
def test_layer_norms_of_any_shape_are_their_members(normalised, between, rms, bias, owner):
    torch.manual_seed(0)
    layer = nn.RMSNorm(normalised) if rms else nn.LayerNorm(normalised, bias=bias)
    case = Case(lambda: layer, draws((None, *between, *normalised)), matrices=())
    check(case, layer, build(layer, norm=owner), {}, 2)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 3), owners)
def test_group_norms_of_any_dimension_are_their_members(groups, width, dimensions, owner):
    torch.manual_seed(0)
    layer = nn.GroupNorm(groups, groups * width)
    case = Case(lambda: layer, draws((None, groups * width, *[3] * dimensions)), matrices=())
    check(case, layer, build(layer, norm=owner), {}, 2)


@settings(deadline=None, max_examples=25)
@given(
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 0.1, 1.0]),
    owners,
    st.booleans(),
)
def test_batch_norms_of_any_arguments_are_their_members(affine, track, momentum, owner, training):
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(3, affine=affine, track_running_stats=track, momentum=momentum)
    case = Case(lambda: layer, draws((None, 3, 2, 3)), matrices=())
    check(case, layer, build(layer, norm=owner).train(training), {}, 3)


@OWNERS
def test_a_synchronised_batch_norm_evaluates_as_its_members(owner):
    layer = nn.SyncBatchNorm(3)
    case = Case(lambda: layer, draws((None, 3, 2)), matrices=())
    check(case, layer, build(layer, norm=owner).eval(), {}, 4)


# Statistics.


def train(norm, batches, members):
    for batch in batches:
        norm(batch.repeat(members, *[1] * (batch.dim() - 1)))


@pytest.mark.parametrize("momentum", [0.3, None])
def test_members_that_see_the_same_keep_the_plain_layers_statistics(momentum):
    plain = nn.BatchNorm1d(3, momentum=momentum)
    twin = MemberBatchNorm(copy.deepcopy(plain), MEMBERS)
    batches = [torch.randn(6, 3) * 2 + 1 for _ in range(4)]
    train(plain, batches, 1)
    train(twin, batches, MEMBERS)
    for index in range(MEMBERS):
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(getattr(twin, name)[index], buffer)
    assert twin.num_batches_tracked.tolist() == [4] * MEMBERS


def test_members_that_see_different_rows_keep_different_statistics():
    twin = MemberBatchNorm(nn.BatchNorm1d(2, momentum=1.0), MEMBERS)
    rows = torch.cat([10.0 * index + torch.randn(50, 2) for index in range(MEMBERS)])
    twin(rows)
    expected = torch.stack([part.mean(0) for part in rows.chunk(MEMBERS)])
    torch.testing.assert_close(twin.running_mean, expected)
    torch.testing.assert_close(twin.running_var, rows.view(MEMBERS, 50, 2).var(1))


def test_shared_norms_keep_statistics_of_each_member():
    plain = nn.BatchNorm1d(2)
    twin = MemberBatchNorm(plain, MEMBERS, norm="shared")
    twin(torch.cat([10.0 * index + torch.randn(50, 2) for index in range(MEMBERS)]))
    assert twin.weight is plain.weight
    assert twin.running_mean.shape == (MEMBERS, 2)
    assert (twin.running_mean.diff(dim=0) > 0.5).all()


def test_evaluation_leaves_the_statistics_alone():
    twin = drawn(MemberBatchNorm(nn.BatchNorm1d(2), MEMBERS)).eval()
    before = copy.deepcopy(twin.state_dict())
    twin(torch.randn(6, 2))
    assert all(torch.equal(before[name], value) for name, value in twin.state_dict().items())


@pytest.mark.parametrize("name", STATISTICS)
def test_a_mode_that_is_set_without_a_call_counts_too(name):
    # Code that puts modes back does so module by module.
    twin, x = build(STATISTICS[name].make()), STATISTICS[name].inputs(MEMBERS * 4)
    for mode in (False, True):
        twin.training = mode
        before = twin.running_mean.clone()
        twin(*x)
        assert torch.equal(twin.running_mean, before) != mode
        assert twin.member(0).training == mode


def test_rows_that_cannot_be_parted_are_refused_in_training_and_evaluation():
    twin = MemberBatchNorm(nn.BatchNorm1d(4), MEMBERS)
    for mode in (True, False):
        with pytest.raises(NotPerExampleError, match=r"\[7, 4\]"):
            twin.train(mode)(torch.randn(7, 4))


# Axes.


@pytest.mark.parametrize("make", [partial(nn.LayerNorm, 4), partial(nn.RMSNorm, 4), nn.PReLU])
def test_the_rows_may_be_on_the_second_axis(make):
    twin = build(make(), batch_axis=1)
    x = torch.randn(7, MEMBERS * 2, 4)
    with running(rows=MEMBERS * 2):
        rows = twin(x)
    parts = [twin.member(i)(part) for i, part in enumerate(x.chunk(MEMBERS, 1))]
    torch.testing.assert_close(rows, torch.cat(parts, 1))


@pytest.mark.parametrize(
    "make",
    [
        partial(nn.GroupNorm, 2, 6),
        partial(nn.InstanceNorm1d, 6, affine=True),
        partial(nn.BatchNorm1d, 6),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_channels_are_never_taken_for_rows(make, training):
    twin = build(make(), batch_axis=1).train(training)
    x = torch.randn(6, 6, 5)
    with running(rows=6):
        rows = twin(x)
    parts = [twin.member(i)(part) for i, part in enumerate(x.chunk(MEMBERS))]
    torch.testing.assert_close(rows, torch.cat(parts))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.InstanceNorm1d(6, affine=True), (6, 5)),
        (nn.InstanceNorm2d(6, affine=True), (6, 6, 5)),
        (nn.InstanceNorm3d(6, affine=True), (6, 6, 5, 5)),
    ],
)
def test_an_image_without_its_batch_is_refused_instead_of_split(layer, shape):
    with pytest.raises(NotPerExampleError):
        build(layer)(torch.zeros(shape))


@pytest.mark.parametrize("case", NORMS.values(), ids=NORMS)
def test_one_row_for_all_examples_is_normalised_once_by_every_member(case):
    twin, (x,) = build(case.make()), case.inputs(1)
    if x.dim() == 1:
        with running(rows=MEMBERS), pytest.raises(AmbiguousAxisError):
            twin(x.expand(MEMBERS))
        return
    with running(rows=MEMBERS * 2):
        rows = twin(x)
    for index, own in enumerate(rows.chunk(MEMBERS)):
        torch.testing.assert_close(own, twin.member(index)(x).expand_as(own))


# What they are.


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.RMSNorm(2), MemberNorm),
        (nn.InstanceNorm1d(2, affine=True), MemberChannelNorm),
        (nn.InstanceNorm1d(2, track_running_stats=True), MemberBatchNorm),
        (nn.PReLU(), MemberPReLU),
    ],
)
def test_each_norm_has_its_twin(layer, kind):
    assert type(build(layer)) is kind


@pytest.mark.parametrize("case", ALL_NORMS.values(), ids=ALL_NORMS)
def test_the_parameters_of_norms_are_norms(case):
    twin = build(case.make())
    assert twin.roles() == {name: "norm" for name, _ in twin.named_parameters()}


@pytest.mark.parametrize("case", ALL_NORMS.values(), ids=ALL_NORMS)
def test_shared_weights_are_the_plain_layers_parameters(case):
    layer = case.make()
    twin = build(layer, norm="shared")
    given = dict(layer.named_parameters())
    assert {name: given[name] is each for name, each in twin.named_parameters()} == dict.fromkeys(
        given, True
    )
