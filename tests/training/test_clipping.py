"""Gradient clipping: a member that explodes does not scale the others' gradients away."""

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.training.clipping import MemberClipping

MEMBERS = 3
torch.manual_seed(0)
X = torch.randn(20, 4, dtype=torch.float64)


def build(method, **options):
    torch.manual_seed(1)
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)]
    return method(nn.Sequential(*layers).double(), MEMBERS, **options)


def gradients(model, factors, limit=None):
    """Return the gradients of losses of very different sizes, clipped if there is a limit."""
    factors = torch.tensor(factors, dtype=torch.float64)

    def backward(more=1.0):
        losses = model(X).square().mean((0, 2))
        (losses * factors * more).sum().backward()

    model.zero_grad()
    backward()
    norms = None
    if limit is not None:
        norms = MemberClipping(model.network, MEMBERS, limit)(backward)
    return norms, {name: each.grad.clone() for name, each in model.named_parameters()}


@pytest.mark.parametrize("options", [{}, {"stacked": False}])
def test_independent_members_are_clipped_as_torch_clips_each_alone(options):
    model = build(be.DeepEnsemble, **options)
    factors = [1.0, 1e4, 0.01]
    _, found = gradients(model, factors, limit=0.5)
    for index, factor in enumerate(factors):
        plain = model.member(index)
        (plain(X).square().mean() * factor).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        own = [each[index] if "copies" not in name else each for name, each in found.items()]
        if options:
            own = [each for name, each in found.items() if f"copies.{index}." in name]
        theirs = torch.cat([each.grad.flatten() for each in plain.parameters()])
        assert torch.cat([each.flatten() for each in own]).norm() == pytest.approx(theirs.norm())


def test_members_under_vmap_are_clipped_each_by_itself():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv1d(4, 6, 1), nn.Flatten(), nn.Linear(6, 2)).double()
    model = be.DeepEnsemble(network, MEMBERS, stacked=True)
    losses = model(X.unsqueeze(2)).square().mean((0, 2)) * torch.tensor([1.0, 1e4, 1.0])
    losses.sum().backward()
    clipping = MemberClipping(model.network, MEMBERS, 0.5)
    assert not clipping.shared
    clipping(lambda factors: pytest.fail("nothing is shared"))
    assert (clipping.norms() <= 0.5 + 1e-6).all()
    assert clipping.norms()[1] == pytest.approx(0.5)


def test_what_the_others_give_to_shared_weights_survives_an_explosion():
    model = build(be.BatchEnsemble)
    limit = 5.0
    norms, found = gradients(model, [1.0, 1e6, 1.0], limit=limit)
    assert norms[1] > 1e4 * norms[0]
    _, expected = gradients(model, [1.0, 1e6 * limit / norms[1].item(), 1.0])
    assert sum(expected[name].norm() for name in ("network.0.weight", "network.2.weight")) < 15
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_below_the_limit_nothing_changes():
    model = build(be.BatchEnsemble)
    _, expected = gradients(model, [1.0, 2.0, 1.0])
    _, found = gradients(model, [1.0, 2.0, 1.0], limit=1e6)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


def test_one_network_is_clipped_as_torch_does():
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    model = be.Single(network)
    y = torch.zeros(20, dtype=torch.long)
    options = {"epochs": 1, "batch_size": 20, "shuffle": False, "cooldown": 0.0}
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    be.fit(model, (X, y), clip=0.01, optimizer=sgd, **options)
    nn.functional.cross_entropy(network(X), y).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 0.01)
    for own, plain in zip(model.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own.detach(), plain.detach() - plain.grad)


@pytest.mark.filterwarnings("ignore:member 1 diverged")
def test_dropout_is_the_same_when_the_gradients_are_taken_again():
    drawn = []

    class Seen(nn.Dropout):
        def forward(self, x):
            y = super().forward(x)
            if torch.is_grad_enabled() and len(x) == 20 * MEMBERS:  # fewer are tried at the door
                drawn.append((y == 0).clone())
            return y

    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(4, 6), Seen(), nn.Linear(6, 2)), MEMBERS)

    def loss(outputs, targets):
        return outputs.square().mean(-1) * torch.tensor([1.0, 1e6, 1.0])

    be.fit(model, (X.float(), torch.zeros(20).long()), loss=loss, clip=1.0, epochs=1)
    assert len(drawn) == 2
    assert torch.equal(*drawn)
