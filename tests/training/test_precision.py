"""Training in lower precision: the products are lowered, the weights are not, and it learns."""

import pytest
import torch
from sklearn.datasets import make_moons
from torch import nn

import batchensemble as be

# Types are checked in other tests; here that would take longer than what is tested.
pytestmark = pytest.mark.usefixtures("as_users_run_it")

X, Y = make_moons(256, noise=0.2, random_state=0)


@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_it_learns_and_keeps_weights_of_full_precision(method, precision):
    types = set()

    class Seen(nn.Module):
        def forward(self, x):
            if torch.is_grad_enabled() and len(x) >= 32:  # fewer are tried at the door
                types.add(x.dtype)
            return x

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 32), Seen(), nn.ReLU(), nn.Linear(32, 2))
    model = method(network, 3)
    be.fit(model, (X, Y), precision=precision, epochs=6, lr=0.05, batch_size=32)
    assert be.evaluate(model, (X, Y))["accuracy"] > 0.9
    assert all(each.dtype == torch.float32 for each in model.parameters())
    expected = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert types == {expected[precision]}


@pytest.mark.usefixtures("as_users_run_it")
def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, fp16"):
        be.fit(be.Single(nn.Linear(2, 2)), (X, Y), precision="int8")
