"""What each member sees of a batch: all of it, an order of its own, or its share."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.ensembles.methods.deep import own_orders
from batchensemble.training.sampling import make_draw, shares

MEMBERS = 3
torch.manual_seed(0)
X, Y = torch.randn(36, 4, dtype=torch.float64), torch.randint(2, (36,))
ONE_STEP = {"epochs": 1, "batch_size": 12, "cooldown": 0.0, "lr": 0.01}


def mlp():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()


def test_each_member_goes_through_all_examples_in_an_order_of_its_own():
    order = torch.randperm(12).view(3, 4)
    drawn = own_orders(order, MEMBERS)
    assert drawn.shape == (3, MEMBERS, 4)
    for member in drawn.unbind(1):
        assert sorted(member.flatten().tolist()) == list(range(12))
    assert not torch.equal(drawn[:, 0], drawn[:, 1])


def test_the_shares_of_the_members_are_the_batch():
    order = torch.randperm(12).view(2, 6)
    drawn = shares(order, MEMBERS)
    assert drawn.shape == (2, MEMBERS, 2)
    assert torch.equal(drawn.flatten(1), order)


@pytest.mark.parametrize("batch", [1, 2, 4, 5, 7])
def test_a_batch_that_does_not_divide_loses_no_example(batch):
    drawn = shares(torch.arange(batch), MEMBERS)
    assert set(drawn.flatten().tolist()) == set(range(batch))
    assert drawn.numel() < batch + MEMBERS


def test_a_step_on_shares_is_each_members_own_loss_on_its_share():
    model, twin = be.BatchEnsemble(mlp(), MEMBERS), be.BatchEnsemble(mlp(), MEMBERS)
    twin.load_state_dict(model.state_dict())
    history = be.fit(model, (X[:12], Y[:12]), batches="split", shuffle=False, **ONE_STEP)
    optimiser = torch.optim.Adam(twin.parameters(), lr=0.01)
    members = zip(X[:12].chunk(MEMBERS), Y[:12].chunk(MEMBERS), strict=True)
    losses = [F.cross_entropy(twin(x)[:, index], y) for index, (x, y) in enumerate(members)]
    sum(losses).backward()
    optimiser.step()
    assert history.member_losses == [pytest.approx([loss.item() for loss in losses])]
    for own, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("batches", ["shared", "independent", "split"])
@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
def test_every_way_trains_and_repeats_bit_by_bit(method, batches):
    def trained():
        torch.manual_seed(2)
        model = method(mlp(), MEMBERS)
        history = be.fit(model, (X, (X[:, 0] > 0).long()), batches=batches, epochs=30, lr=0.03)
        return history, [each.detach().clone() for each in model.parameters()]

    (one, weights), (two, again) = trained(), trained()
    assert one.losses == two.losses
    assert one.losses[-1] < 0.5 * one.losses[0]
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert one.examples == [36] * 30


def test_a_deep_ensemble_can_share_its_batches_and_others_can_have_orders_of_their_own():
    calls = []

    class Seen(nn.Module):
        def forward(self, x):
            if torch.is_grad_enabled() and len(x) >= 12:  # fewer are tried at the door
                calls.append(x.detach().clone())
            return x

    def rows_of_first_step(method, batches):
        calls.clear()
        model = method(nn.Sequential(Seen(), *mlp()), MEMBERS)
        be.fit(model, (X, Y), batches=batches, epochs=1, batch_size=12)
        return torch.cat(calls)[: 12 * MEMBERS].view(MEMBERS, 12, 4)

    shared = rows_of_first_step(be.DeepEnsemble, "shared")
    assert torch.equal(shared[0], shared[1])
    own = rows_of_first_step(be.BatchEnsemble, "independent")
    assert not torch.equal(own[0], own[1])


@pytest.mark.parametrize("batches", ["independent", "split"])
def test_a_loader_is_shared_out_too(batches):
    model = be.BatchEnsemble(mlp(), MEMBERS)
    history = be.fit(model, DataLoader(TensorDataset(X, Y), 12), batches=batches, epochs=2)
    assert history.examples == [36, 36]


def test_one_member_sees_all_there_is():
    assert make_draw(be.Single(mlp()), "split", "members") is None


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batches": "splitt"}, "batches must be one of shared, independent, split, got 'splitt'"),
        ({"batches": "split", "loss_on": "mean_logits"}, "leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.fit(be.BatchEnsemble(mlp(), MEMBERS), (X, Y), **options)


def test_mimo_draws_in_a_way_of_its_own():
    with pytest.raises(ValueError, match="input_repetition"):
        be.fit(be.MIMO(mlp(), MEMBERS), (X, Y), batches="shared")
