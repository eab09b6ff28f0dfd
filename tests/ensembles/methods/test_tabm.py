"""TabM, TabM-mini and the last-layer ensemble: what each member owns, and how it starts."""

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.layers import RankOne


def perceptron():
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.Linear(6, 3)]
    return nn.Sequential(*layers)


KINDS = {"tabm": be.TabM, "tabm_mini": be.TabMMini, "last_layer": be.LastLayerEnsemble}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_members_are_what_the_slow_loop_computes_with_its_gradients(kind):
    torch.manual_seed(0)
    model = kind(perceptron().double(), members=3).eval()
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    loop = torch.stack([model.member(index)(x) for index in range(3)], 1)
    torch.testing.assert_close(model(x), loop)
    weights = torch.randn_like(loop)
    one, other = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (model(x), loop))
    torch.testing.assert_close(one, other)
    assert not torch.allclose(loop[:, 0], loop[:, 1])


def test_tabm_starts_with_signs_on_its_inputs_and_ones_elsewhere():
    model = be.TabM(perceptron(), members=3)
    first, second = model.network[0], model.network[3]
    assert set(first.r.detach().unique().tolist()) == {-1.0, 1.0}
    assert all(bool((each == 1).all()) for each in (first.s, second.r, second.s))
    assert second.bias.shape == (3, 6)
    heads = [model.member(index)[4].weight for index in range(3)]
    assert not torch.equal(heads[0], heads[1])


def test_tabm_mini_trains_a_scale_of_each_input_and_heads():
    torch.manual_seed(0)
    model = be.TabMMini(perceptron(), members=3)
    names = {name for name, module in model.network.named_modules() if isinstance(module, RankOne)}
    assert names == {"0"}
    x, y = torch.randn(40, 4), torch.randint(3, (40,))
    be.fit(model, (x, y), epochs=2, progress=False)
    plain = [model.member(index) for index in range(3)]
    assert torch.equal(plain[0][3].weight, plain[1][3].weight)
    assert torch.equal(plain[0][0].bias, plain[1][0].bias)
    ratio = plain[0][0].weight / plain[1][0].weight  # one number for each input
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=1e-5)
    assert not torch.equal(plain[0][1].running_mean, plain[1][1].running_mean)


def test_the_last_layer_is_all_that_a_member_owns_and_the_rest_runs_once():
    plain, calls = perceptron(), []
    model = be.LastLayerEnsemble(plain, members=3).eval()
    model.network[0].register_forward_hook(lambda _, given, out: calls.append(len(out)))
    model(torch.randn(7, 4))
    model(torch.randn(7, 4))
    assert calls[-1] == 7
    members = [model.member(index) for index in range(3)]
    assert torch.equal(members[0][3].weight, plain[3].weight)
    assert not torch.equal(members[0][4].weight, members[1][4].weight)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_saved_one_predicts_the_same(kind, tmp_path):
    torch.manual_seed(0)
    model, x = kind(perceptron(), members=3).eval(), torch.randn(6, 4)
    again = be.load(be.save(model, tmp_path / "m"), network=perceptron()).eval()
    assert type(again) is kind
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    fewer = model.select([2, 0])
    torch.testing.assert_close(fewer(x), model(x)[:, [2, 0]])


def test_a_network_without_a_first_and_a_last_layer_is_refused():
    with pytest.raises(
        ValueError, match="TabM needs a first and a last layer, and the network has"
    ):
        be.TabM(nn.Linear(4, 3), members=3)
    for network in (nn.ReLU(), nn.Linear(4, 3)):
        with pytest.raises(ValueError, match="no layer with weights beneath it that each member"):
            be.LastLayerEnsemble(network, members=3)
    one = nn.Sequential(nn.Linear(4, 3))
    assert be.LastLayerEnsemble(one, members=3)(torch.ones(2, 4)).shape == (2, 3, 3)
