"""Fast weights start as the table of ``initialisation`` says."""

import json

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.layers import RankOneLinear, RankOneRecurrent
from batchensemble.layers.rank_one.initialisation import (
    FeatureDraws,
    feature_normals,
    feature_signs,
    initialise,
)
from reference import build

MEMBERS = 4


def twin(**options):
    torch.manual_seed(0)
    return RankOneLinear(nn.Linear(200, 100), MEMBERS, **options)


def test_the_default_is_random_signs_or_a_normal_addition():
    for mode, name in (("multiplicative", "random_sign"), ("additive", "normal")):
        assert torch.equal(twin(mode=mode).r, twin(mode=mode, init=name).r)


def test_random_signs_are_both_and_nothing_else():
    for fast in (twin(init="random_sign").r, twin(init="random_sign").s):
        assert fast.unique().tolist() == [-1.0, 1.0]
        assert abs(fast.mean()) < 0.2


def test_random_signs_only_mirror_the_shared_weight():
    layer = twin(init="random_sign")
    for index in range(MEMBERS):
        assert torch.equal(layer.merged_weight(index).abs(), layer.weight.abs())
    assert not torch.equal(layer.merged_weight(0), layer.merged_weight(1))


def test_normal_scales_each_unit_around_one():
    layer = twin(init="normal")
    assert layer.r.mean().item() == pytest.approx(1.0, abs=0.1)
    assert layer.r.std().item() == pytest.approx(0.5, abs=0.1)


def test_an_additive_normal_start_adds_a_weight_of_the_layers_own_size():
    for rank in (1, 4):
        layer = twin(mode="additive", rank=rank)
        added = torch.stack([layer.merged_weight(i) - layer.weight for i in range(MEMBERS)])
        assert added.std().item() == pytest.approx(layer.weight.std().item(), rel=0.3)


@pytest.mark.parametrize(("mode", "init"), [("multiplicative", "ones"), ("additive", "zeros")])
def test_ones_and_zeros_start_all_members_as_the_network_itself(mode, init):
    layer = twin(mode=mode, init=init)
    for index in range(MEMBERS):
        assert torch.equal(layer.merged_weight(index), layer.weight)


def test_members_that_start_alike_in_additive_mode_can_still_part():
    layer = twin(mode="additive", init="zeros")
    layer(torch.randn(MEMBERS * 3, 200)).pow(2).sum().backward()
    assert layer.s.grad.any()


@pytest.mark.parametrize("options", [{}, {"mode": "additive", "rank": 2, "alpha": 3.0}])
def test_a_function_of_ones_own_gets_the_weight_and_fills_what_bends_it(options):
    seen = []

    def halves(fast):
        seen.append(fast)
        fast.r.fill_(0.5)
        fast.s.fill_(2.0)

    layer = twin(init=halves, **options)
    (fast,) = seen
    assert fast.weight is layer.weight
    assert fast.bias is layer.bias
    assert (fast.r is layer.r, fast.s is layer.s) == (True, True)
    assert (fast.mode, fast.scale, fast.std) == (
        options.get("mode", "multiplicative"),
        1.5 if options else 1.0,
        1.0 if options else 0.5,
    )
    assert layer.r.requires_grad
    assert layer.r.unique().tolist() == [0.5]
    expected = layer.weight + 1.5 * 2.0 if options else layer.weight
    torch.testing.assert_close(layer.merged_weight(0), expected)


@pytest.mark.parametrize("mode", ["multiplicative", "additive"])
def test_what_a_function_of_ones_own_leaves_changes_nothing(mode):
    def spoil():  # what the memory that is free holds, which is drawn when fast weights are made
        for _ in range(20):
            [torch.full((MEMBERS, size), torch.nan) for size in (100, 200)]

    neutral = 1.0 if mode == "multiplicative" else 0.0
    for make in (nn.Linear(200, 100), nn.Sequential(nn.Linear(200, 100))):
        spoil()
        model = be.BatchEnsemble(make, MEMBERS, mode=mode, init=lambda fast: fast.r.fill_(0.5))
        found = dict(model.named_parameters())
        (s,) = [value for name, value in found.items() if name.split(".")[-1] == "s"]
        assert (s == neutral).all()
    layer = twin(mode=mode, init=lambda fast: None)
    assert (layer.r == neutral).all()
    assert (layer.s == neutral).all()


def test_a_function_of_ones_own_is_called_for_each_weight_of_a_layer():
    shapes = []
    layer = nn.LSTM(3, 4, num_layers=2, proj_size=2)
    RankOneRecurrent(layer, MEMBERS, init=lambda fast: shapes.append(tuple(fast.weight.shape)))
    assert shapes == [tuple(w.shape) for n, w in layer.named_parameters() if "weight" in n]


def test_the_width_of_the_normal_start_is_ones_own():
    assert twin(init="normal", std=0.1).s.std().item() == pytest.approx(0.1, abs=0.03)


def test_tabm_starts_a_layer_as_itself():
    layer = twin(init="tabm")
    assert torch.equal(layer.merged_weight(1), layer.weight)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 16, 3),
        nn.ConvTranspose2d(16, 8, 3),
        nn.Embedding(200, 16),
        nn.Bilinear(8, 8, 16),
    ],
)
def test_an_additive_normal_start_is_of_the_size_of_any_weight(layer):
    for options in ({}, {"rank": 4, "alpha": 2.0}):
        bent = build(layer, mode="additive", **options)
        with torch.no_grad():
            layer.weight.mul_(3.0)
        initialise(bent.fast_weights(), bent.options)
        added = torch.stack([bent.merged_weight(i) - layer.weight for i in range(3)])
        assert added.pow(2).mean().sqrt().item() == pytest.approx(
            layer.weight.pow(2).mean().sqrt().item(), rel=0.4
        )


@pytest.mark.parametrize(
    ("mode", "init", "hint"),
    [
        ("multiplicative", "random_sing", "did you mean 'random_sign'"),
        ("additive", "zero", "did you mean 'zeros'"),
        ("multiplicative", "zeros", "must be one of random_sign, normal, ones"),
        ("additive", "random_sign", "must be one of normal, zeros"),
    ],
)
def test_a_name_that_the_mode_lacks_is_refused_with_those_it_has(mode, init, hint):
    with pytest.raises(ValueError, match=hint):
        twin(mode=mode, init=init)


def test_the_size_of_what_is_added_can_be_set():
    layer = twin(mode="additive", rank=2, std=0.1)
    added = torch.stack([layer.merged_weight(i) - layer.weight for i in range(MEMBERS)])
    assert added.std().item() == pytest.approx(0.1 * layer.weight.std().item(), rel=0.3)


@pytest.mark.parametrize(
    "options",
    [{}, {"init": "ones"}, {"mode": "additive", "init": "zeros"}, {"init": lambda fast: None}],
)
def test_a_deviation_that_nothing_has_is_refused(options):
    with pytest.raises(ValueError, match="std needs init='normal'"):
        twin(std=0.2, **options)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.LSTM(6, 5, batch_first=True), Last()
    )


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 2)

    def forward(self, outputs):
        return self.head(outputs[0])


def test_a_function_of_ones_own_sees_which_layer_it_starts():
    seen = []

    def init(fast):
        seen.append((fast.name, list(fast.weight.shape), fast.first, fast.last))
        fast.r.fill_(2.0)
        fast.s.fill_(0.5)

    model = be.BatchEnsemble(network(), members=3, init=init)
    assert seen == [
        ("0.0", [6, 4], True, False),
        ("1", [20, 6], False, False),
        ("1", [20, 5], False, False),
        ("2.head", [2, 5], False, True),
    ]
    assert model.options["init"] is model.network[0][0].options.init is init
    assert model.network[2].head.r.unique().tolist() == [2.0]
    seen.clear()
    be.BatchEnsemble(network(), members=3, init=init, branch_at="1", exclude=["2"])
    assert [(name, first, last) for name, _, first, last in seen] == [
        ("1", True, False),
        ("1", False, True),
    ]


def test_tabm_flips_the_first_layer_alone():
    model = be.BatchEnsemble(network(), members=3, init="tabm")
    first, *others = (p for name, p in model.named_parameters() if name.endswith(("r", ".s")))
    assert first.unique().tolist() == [-1.0, 1.0]
    assert all(each.unique().tolist() == [1.0] for each in others)
    assert model.network[0][0].options.init == "tabm"


def test_features_keep_or_flip_their_sign_as_a_whole():
    widths = [8, 8, 1, 5]
    net = nn.Sequential(nn.Linear(22, 16), nn.ReLU(), nn.Linear(16, 2))
    first = be.BatchEnsemble(net, members=200, init=feature_signs(widths)).network[0].r
    start = 0
    for width in widths:
        part = first[:, start : start + width]
        assert (part == part[:, :1]).all()
        assert abs(part.mean()) < 0.3
        start += width
    columns = first[:, [0, 8, 16, 17]]
    assert len(columns.unique(dim=0)) == 16
    model = be.BatchEnsemble(net, members=3, init=feature_signs(widths))
    for fast in (model.network[0].s, model.network[2].r, model.network[2].s):
        assert fast.unique().tolist() == [1.0]


def test_features_are_scaled_by_draws_of_a_normal_as_a_whole():
    net = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 2))
    model = be.BatchEnsemble(net, members=4_000, init=feature_normals([4, 2, 1]))
    first = model.network[0].r
    for start, end in ((0, 4), (4, 6), (6, 7)):
        part = first[:, start:end]
        assert (part == part[:, :1]).all()
        assert abs(part.mean()) < 0.1
        assert abs(part[:, 0].std() - 1) < 0.1
    assert torch.allclose(first[:, [0, 4, 6]].square().mean(1), torch.tensor(1.0))
    alone = be.BatchEnsemble(nn.Linear(2, 1), members=50, init=feature_normals([2])).network.r
    assert torch.allclose(alone.abs(), torch.tensor(1.0))
    for fast in (model.network[0].s, model.network[2].r, model.network[2].s):
        assert fast.unique().tolist() == [1.0]


def test_features_are_embedded_before_the_branch():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Linear(3, 9)
            self.backbone = nn.Sequential(nn.Linear(9, 8), nn.ReLU())
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.backbone(self.embedding(x).relu()))

    options = {"branch_at": "backbone", "init": feature_signs([4, 4, 1])}
    model = be.BatchEnsemble(Embedded(), members=5, **options)
    first = model.network.backbone[0].r
    assert (first[:, :4] == first[:, :1]).all()
    be.fit(model, (torch.randn(20, 3), torch.arange(20) % 2), epochs=1)


@pytest.mark.parametrize(
    ("widths", "options", "error", "sentence"),
    [
        ([], {}, ValueError, "at least one feature"),
        ([4, 0], {}, ValueError, "widths must be at least 1"),
        ([4, 1.5], {}, TypeError, "widths must be a whole number"),
        ([4, 2], {}, ValueError, "sum to 6, and the first layer with fast weights, '0', has 5"),
        ([4, 1], {"mode": "additive"}, ValueError, "mode='multiplicative'"),
    ],
)
def test_widths_that_do_not_fit_are_refused(widths, options, error, sentence):
    with pytest.raises(error, match=sentence):
        be.BatchEnsemble(nn.Sequential(nn.Linear(5, 2)), 3, init=feature_signs(widths), **options)


@pytest.mark.parametrize(
    "init", [feature_signs([2, 3]), feature_normals([5]), lambda fast: fast.r.fill_(3.0)]
)
def test_an_ensemble_started_by_a_function_is_saved(init, tmp_path):
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    model = be.BatchEnsemble(net, members=20, init=init)
    loaded = be.load(be.save(model, tmp_path))
    for one, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)
    known = isinstance(init, FeatureDraws)
    assert loaded.options["init"] == (init if known else None)
    assert be.load(be.save(loaded, tmp_path / "again")).options["init"] == loaded.options["init"]


@pytest.mark.parametrize("widths", [[], [0], ["a"], [True], 5, None])
def test_a_folder_with_other_widths_is_refused(widths, tmp_path):
    be.save(be.BatchEnsemble(nn.Linear(5, 2), 2, init=feature_signs([5])), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["options"]["init"] = {"feature_signs": widths}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="init must be null, a name, or the widths"):
        be.load(tmp_path)
