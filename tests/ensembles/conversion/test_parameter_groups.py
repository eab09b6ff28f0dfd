"""Parameter groups hold each parameter once, and decay only where it belongs."""

import pytest
import torch
from torch import nn

import batchensemble as be


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.place = nn.Parameter(torch.randn(1, 5, 6))
        self.scale = nn.Parameter(torch.ones(6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.kept = nn.LayerNorm(6)
        self.stem = nn.Linear(6, 6)
        self.recurrent = nn.LSTM(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.kept(self.norm(self.stem(self.words(x)))))


def groups(model, **options):
    names = {parameter: name for name, parameter in model.named_parameters()}
    result = model.parameter_groups(lr=1e-3, weight_decay=1e-2, **options)
    return {
        g["name"]: ({names[p].removeprefix("network.") for p in g["params"]}, g) for g in result
    }


def model(**options):
    return be.BatchEnsemble(Tower(), 3, exclude=["kept"], independent=["stem"], **options)


def test_each_parameter_is_in_one_group():
    ensemble = model()
    held = [p for group in ensemble.parameter_groups(lr=1e-3) for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == set(ensemble.parameters())


def test_parameters_are_grouped_by_what_they_are():
    by_name = {name: held for name, (held, _) in groups(model()).items()}
    assert {"words.weight", "stem.weight", "place", "recurrent.weight_ih_l0"} <= by_name["shared"]
    assert {"words.r", "head.s", "attention.q_proj.r", "recurrent.weight_hh_l0_s"} <= by_name[
        "fast"
    ]
    assert {"stem.bias", "recurrent.bias_ih_l0", "attention.out_proj.bias"} <= by_name["bias"]
    assert by_name["norm"] == {"norm.weight", "norm.bias", "kept.weight", "kept.bias", "scale"}


def test_only_weights_decay_and_fast_weights_have_a_rate_of_their_own():
    for name, (_, group) in groups(model(), fast_lr_multiplier=5.0).items():
        assert group["weight_decay"] == (1e-2 if name == "shared" else 0.0)
        assert group["lr"] == (5e-3 if name == "fast" else 1e-3)


def test_an_optimiser_takes_them():
    ensemble = model()
    optimiser = torch.optim.AdamW(ensemble.parameter_groups(lr=1e-2, weight_decay=0.5))
    before = ensemble.network.head.r.detach().clone()
    ensemble(torch.randint(11, (4, 5))).sum().backward()
    optimiser.step()
    assert not torch.equal(ensemble.network.head.r, before)


def test_a_single_network_and_a_deep_ensemble_have_groups_too():
    for ensemble in (be.Single(Tower()), be.DeepEnsemble(nn.Linear(2, 3), 3)):
        held = [p for group in ensemble.parameter_groups(lr=1e-3) for p in group["params"]]
        assert set(held) == set(ensemble.parameters())
        assert "fast" not in [group["name"] for group in ensemble.parameter_groups(lr=1e-3)]


@pytest.mark.parametrize(
    "wrong",
    [{"lr": 0.0}, {"lr": 1.0, "weight_decay": -1.0}, {"lr": 1.0, "fast_lr_multiplier": 0.0}],
)
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        model().parameter_groups(**wrong)
