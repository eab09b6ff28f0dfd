"""A batch in parts has the gradients of the whole."""

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles import METHODS
from batchensemble.losses import cross_entropy

torch.manual_seed(0)
X, Y = torch.randn(30, 4, dtype=torch.float64), torch.randint(2, (30,))


def trained(method, **options):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    model = METHODS[method].build(network, 3)
    history = be.fit(model, (X, Y), epochs=2, batch_size=12, lr=0.01, **options)
    return history, list(model.parameters())


@pytest.mark.parametrize("loss", ["cross_entropy", lambda o, t: cross_entropy(o, t)])
@pytest.mark.parametrize("method", [each for each in METHODS if each != "mc_dropout"])
@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_micro_batches_train_what_whole_batches_train(method, size, loss):
    whole, expected = trained(method, loss=loss)
    parts, weights = trained(method, loss=loss, micro_batch=size)
    for own, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-10)
    assert parts.member_losses[-1] == pytest.approx(whole.member_losses[-1])
    assert parts.examples == whole.examples
    assert parts.forward_calls == [2 * -(-12 // size) + -(-6 // size)] * 2


def test_micro_batches_take_targets_of_each_member_and_shares():
    torch.manual_seed(1)
    targets = torch.stack([Y, 1 - Y], 1)
    results = []
    for micro_batch in (None, 4):
        torch.manual_seed(2)
        model = be.BatchEnsemble(nn.Linear(4, 2).double(), 2)
        own = {"per_member_targets": True, "micro_batch": micro_batch}
        be.fit(model, (X, targets), epochs=2, batch_size=12, **own)
        be.fit(model, (X, Y), epochs=2, batch_size=12, batches="split", micro_batch=micro_batch)
        results.append([each.detach() for each in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("loss", ["cross_entropy", lambda o, t: cross_entropy(o, t)])
@pytest.mark.parametrize("method", METHODS)
def test_callbacks_see_targets_in_the_order_of_the_inputs(method, loss):
    by_input = {tuple(x): int(y) for x, y in zip(X.tolist(), Y, strict=True)}

    class Look(be.Callback):
        def on_step(self, run):
            inputs, targets = run.last_inputs, run.last_targets
            assert inputs.shape[:-1] == targets.shape
            seen = [by_input[tuple(x)] for x in inputs.flatten(0, -2).tolist()]
            assert seen == targets.flatten().tolist()

    trained(method, loss=loss, callbacks=[Look()])


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("size", [0, -1, 2.5, "4"])
def test_a_micro_batch_is_a_whole_number(size):
    with pytest.raises((TypeError, ValueError), match="micro_batch must be"):
        trained("batch", micro_batch=size)
