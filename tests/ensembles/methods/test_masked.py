"""MC dropout and Masksembles: one set of weights, seen through masks of each member's own."""

from functools import partial

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.methods.masksembles import overlapping_masks


def perceptron():
    layers = [nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3)]
    return nn.Sequential(*layers)


class Images(nn.Module):
    """Convolutions, a batch norm, a group of channels, a residual sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.up, self.head = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.up(x + self.grouped(x)).mean((2, 3)))


class Words(nn.Module):
    """An embedding, whose rows must not be dropped."""

    def __init__(self):
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.mix(self.table(x)).relu().mean(1))


INPUTS = {
    perceptron: lambda: torch.randn(7, 4, dtype=torch.float64),
    Images: lambda: torch.randn(7, 1, 6, 6, dtype=torch.float64),
    Words: lambda: torch.randint(9, (7, 5)),
}
KINDS = {"mc_dropout": partial(be.MCDropout, rate=0.5), "masksembles": be.Masksembles}


@pytest.mark.parametrize("make", INPUTS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_members_are_the_network_with_its_inputs_masked(kind, make):
    """The slow way: each layer's input times the member's mask, by hooks on a plain network."""
    torch.manual_seed(0)
    plain = make().double().eval()
    model, x = kind(plain, members=3).double().eval(), INPUTS[make]()
    masks = {
        name: model.network.get_submodule(name).r
        for name, _ in plain.named_modules()
        if hasattr(model.network.get_submodule(name), "r")
    }
    first = next(iter(masks))
    assert bool((masks.pop(first) == 1).all())  # the first layer sees all its inputs
    assert masks
    assert all((each == 0).any() for each in masks.values())
    for member in range(3):
        handles = [
            plain.get_submodule(name).register_forward_pre_hook(
                lambda layer, given, mask=mask[member]: (
                    given[0] * mask.view(-1, *[1] * (0 if isinstance(layer, nn.Linear) else 2))
                )
            )
            for name, mask in masks.items()
        ]
        expected = plain(x)
        for each in handles:
            each.remove()
        torch.testing.assert_close(model(x)[:, member], expected)
        torch.testing.assert_close(model.member(member)(x), expected)
    assert not torch.allclose(model(x)[:, 0], model(x)[:, 1])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_training_changes_the_weights_that_all_share_and_no_mask(kind):
    torch.manual_seed(0)
    model = kind(perceptron(), members=3)
    masks = [each.clone() for name, each in model.named_parameters() if name.endswith(".r")]
    before = model.network[2].weight.clone()
    x, y = torch.randn(40, 4), torch.randint(3, (40,))
    be.fit(model, (x, y), epochs=2, progress=False)
    after = [each for name, each in model.named_parameters() if name.endswith(".r")]
    assert all(torch.equal(a, b) for a, b in zip(masks, after, strict=True))
    assert not torch.equal(before, model.network[2].weight)
    assert model.network[2].bias.shape == (12,)


def test_mc_dropout_is_ordinary_dropout_in_training():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 50, bias=False), nn.Linear(50, 1, bias=False))
    nn.init.ones_(plain[0].weight)
    nn.init.ones_(plain[1].weight)
    model = be.MCDropout(plain, members=2, rate=0.2).train()
    outputs = model(torch.full((3000, 4), 0.25))[..., 0]  # 50 ones, some dropped, over 0.8
    kept = outputs * 0.8
    torch.testing.assert_close(kept, kept.round())
    assert kept.mean().item() == pytest.approx(40, abs=0.1)
    assert kept.var().item() == pytest.approx(50 * 0.2 * 0.8, rel=0.05)
    assert len(kept[:, 0].unique()) > 5  # rows have masks of their own
    assert not torch.equal(outputs, model(torch.full((3000, 4), 0.25))[..., 0])
    model.eval()
    assert len(model(torch.full((30, 4), 0.25))[:, 0].unique()) == 1


def test_mc_dropout_drops_whole_channels_of_convolutions():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv1d(1, 6, 1, bias=False), nn.Conv1d(6, 1, 1, bias=False))
    nn.init.ones_(plain[0].weight)
    nn.init.ones_(plain[1].weight)
    outputs = be.MCDropout(plain, members=2, rate=0.5).train()(torch.ones(20, 1, 9))
    assert (outputs == outputs[..., :1]).all()
    assert len(outputs.unique()) > 3


def test_gradients_of_dropout_in_training_are_those_of_the_shared_weights():
    torch.manual_seed(0)
    model = be.MCDropout(perceptron().double(), members=3, rate=0.3).train()
    x = torch.randn(5, 4, dtype=torch.float64)
    weight = model.network[2].weight

    def loss(value):
        torch.manual_seed(1)
        return torch.func.functional_call(model, {"network.2.weight": value}, (x,)).square().mean()

    assert torch.autograd.gradcheck(loss, (weight,))


def test_a_mask_of_a_loaded_model_still_drops_in_training(tmp_path):
    model = be.MCDropout(perceptron(), members=3, rate=0.3)
    again = be.load(be.save(model, tmp_path / "m"), network=perceptron())
    x = torch.randn(6, 4)
    torch.testing.assert_close(again.eval()(x), model.eval()(x))
    assert not torch.equal(again.train()(x), again(x))
    assert again.options["rate"] == 0.3


@pytest.mark.parametrize(
    ("channels", "members", "scale"),
    [(128, 4, 2.0), (128, 4, 1.0), (64, 16, 3.0), (8, 4, 2.0), (3, 4, 2.0), (2, 4, 6.0), (1, 3, 2)],
)
def test_masks_keep_equally_many_and_leave_no_input_out(channels, members, scale):
    torch.manual_seed(0)
    masks = overlapping_masks(channels, members, scale)
    assert masks.shape == (members, channels)
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    assert len(masks.sum(1).unique()) == 1
    assert masks.any(0).all()
    if scale == 1:
        assert masks.all()


def test_masks_overlap_as_much_as_the_scale_says():
    torch.manual_seed(0)
    for scale in (1.5, 2.0, 4.0):
        masks = overlapping_masks(2_000, 4, scale)
        common = (masks[0] * masks[1]).sum() / masks[0].sum()
        assert common.item() == pytest.approx(1 / scale, abs=0.05)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_network_of_one_layer_has_nothing_to_mask(kind):
    with pytest.raises(ValueError, match="the network has none; the members would all be the same"):
        kind(nn.Linear(4, 3), members=3)
    assert kind(nn.Linear(4, 3), members=1).members == 1


@pytest.mark.parametrize("rate", [0, 1, 1.5, -0.1, float("nan")])
def test_a_rate_that_drops_nothing_or_all_is_refused(rate):
    with pytest.raises(ValueError, match="rate must be"):
        be.MCDropout(perceptron(), members=3, rate=rate)


def test_a_scale_below_one_is_refused():
    with pytest.raises(ValueError, match=r"scale must be at least 1, got 0\.5"):
        be.Masksembles(perceptron(), members=3, scale=0.5)
