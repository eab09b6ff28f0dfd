"""FiLM-Ensemble: members scale and shift the features of one network."""

import pytest
import torch
from torch import nn

import batchensemble as be


class Normed(nn.Module):
    """Norms of several kinds, one of them without weights, and a ``PReLU``, which is no norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv1d(1, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.bend, self.groups = nn.PReLU(8), nn.GroupNorm(2, 8)
        self.bare, self.root = nn.BatchNorm1d(8, affine=False), nn.RMSNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.groups(self.bend(self.norm(self.first(x.unsqueeze(1)))))
        return self.head(self.root(self.bare(x).mean(2)))


def plain():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.Linear(6, 3))


@pytest.mark.parametrize("make", [Normed, plain])
def test_the_members_are_what_the_slow_loop_computes_with_its_gradients(make):
    torch.manual_seed(0)
    model = be.FiLMEnsemble(make().double(), members=3, gain=3.0).eval()
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    loop = torch.stack([model.member(index)(x) for index in range(3)], 1)
    torch.testing.assert_close(model(x), loop)
    weights = torch.randn_like(loop)
    one, other = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (model(x), loop))
    torch.testing.assert_close(one, other)
    assert not torch.allclose(loop[:, 0], loop[:, 1])


def test_the_norms_are_all_that_members_own_and_start_as_the_paper_draws_them():
    torch.manual_seed(0)
    model = be.FiLMEnsemble(nn.Sequential(nn.Linear(4, 500), nn.BatchNorm1d(500)), members=3)
    norm = model.network[1]
    bound = (6 / 503) ** 0.5
    for each in (norm.weight, norm.bias):
        assert each.shape == (3, 500)
        assert each.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert each.mean().item() == pytest.approx(0, abs=bound / 10)
    assert isinstance(model.network[0], nn.Linear)
    mixed = be.FiLMEnsemble(Normed(), members=2)
    one, other = (dict(mixed.member(index).named_parameters()) for index in range(2))
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert differ == {"norm.weight", "norm.bias", "groups.weight", "groups.bias", "root.weight"}


def test_without_norms_the_outputs_of_layers_but_the_last_are_scaled_and_shifted():
    torch.manual_seed(0)
    network = plain()
    model = be.FiLMEnsemble(network, members=2)
    members = [model.member(index) for index in range(2)]
    for layer in (0, 2):
        ratio = members[0][layer].weight / network[layer].weight  # one number for each output
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=1e-5)
    assert not torch.equal(members[0][0].bias, members[1][0].bias)
    assert torch.equal(members[0][3].weight, members[1][3].weight)


def test_training_leaves_the_members_apart_in_what_they_own_alone(tmp_path):
    torch.manual_seed(0)
    model = be.FiLMEnsemble(Normed(), members=3)
    be.fit(model, (torch.randn(40, 4), torch.randint(3, (40,))), epochs=2, progress=False)
    members = [model.eval().member(index) for index in range(3)]
    for name in ("first.weight", "first.bias", "bend.weight", "head.weight"):
        assert torch.equal(members[0].get_parameter(name), members[1].get_parameter(name))
    assert not torch.equal(members[0].norm.weight, members[1].norm.weight)
    again = be.load(be.save(model, tmp_path / "m"), network=Normed()).eval()
    x = torch.randn(6, 4)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_what_has_nothing_to_modulate_is_refused():
    with pytest.raises(ValueError, match="the network has neither; the members would all be"):
        be.FiLMEnsemble(nn.Sequential(nn.Linear(4, 3)), members=2)
    with pytest.raises(ValueError, match="gain must be"):
        be.FiLMEnsemble(plain(), members=2, gain=0)
