"""What holds for every ensemble, whatever its members share."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import batchensemble as be
from batchensemble.ensembles import METHODS, Ensemble

MEMBERS = 3


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.trunk, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.stem(x)
        return self.head(hidden + torch.relu(self.trunk(hidden)))


MODELS = {
    "single": lambda: be.Single(mlp()),
    "single, own class": lambda: be.Single(Residual()),
    "deep": lambda: be.DeepEnsemble(mlp(), MEMBERS),
    "deep, own class": lambda: be.DeepEnsemble(Residual(), MEMBERS),
    "deep, copies": lambda: be.DeepEnsemble(mlp(), MEMBERS, stacked=False),
    "batch": lambda: be.BatchEnsemble(mlp(), MEMBERS),
    "batch, one member": lambda: be.BatchEnsemble(mlp(), 1),
    "batch, own class": lambda: be.BatchEnsemble(Residual(), MEMBERS, independent=["head"]),
    "batch, additive": lambda: be.BatchEnsemble(mlp(), MEMBERS, mode="additive", rank=2),
    "batch, shared bias": lambda: be.BatchEnsemble(mlp(), MEMBERS, bias="shared", init="normal"),
    "batch, some independent": lambda: be.BatchEnsemble(mlp(), MEMBERS, independent=["0"]),
    "batch, some shared": lambda: be.BatchEnsemble(mlp(), MEMBERS, exclude=["4"]),
    "mimo": lambda: be.MIMO(mlp(), MEMBERS),
    "mimo, own class": lambda: be.MIMO(Residual(), MEMBERS),
    "mimo, one layer": lambda: be.MIMO(nn.Linear(4, 2), MEMBERS),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().double()


def examples(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_one_output_for_each_example_and_member(model):
    assert model(examples(7, 4)).shape == (7, model.members, 2)


@pytest.mark.parametrize("per_member", [False, True])
def test_no_examples_give_no_outputs(model, per_member):
    x = examples(0, model.members, 4) if per_member else examples(0, 4)
    assert model(x, per_member=per_member).shape == (0, model.members, 2)


def test_each_column_is_what_the_plain_member_computes(model):
    x = examples(7, 4)
    for index in range(model.members):
        torch.testing.assert_close(model(x)[:, index], model.member(index)(x))


def test_members_count_from_the_end_too(model):
    x = examples(7, 4)
    assert torch.equal(model.member(-1)(x), model.member(model.members - 1)(x))


@pytest.mark.parametrize("beyond", [0, 5, -100])
def test_a_member_that_is_not_there_is_an_index_error(model, beyond):
    index = beyond if beyond < 0 else model.members + beyond
    with pytest.raises(IndexError, match=f"give 0 to {model.members - 1}"):
        model.member(index)


def test_each_member_sees_its_own_examples(model):
    x = examples(7, model.members, 4)
    if isinstance(model, be.MIMO):
        expected = model.network(x.flatten(1)).unflatten(1, (model.members, 2))
    else:
        columns = [model.member(index)(x[:, index]) for index in range(model.members)]
        expected = torch.stack(columns, 1)
    torch.testing.assert_close(model(x, per_member=True), expected)


def test_the_same_example_for_each_member_is_the_example_for_all(model):
    x = examples(7, 4)
    repeated = x.unsqueeze(1).repeat(1, model.members, 1)
    torch.testing.assert_close(model(repeated, per_member=True), model(x))


@pytest.mark.parametrize("shape", [(7, 4), (7,), (7, 11, 4)])
def test_examples_without_an_axis_of_members_are_refused(model, shape):
    with pytest.raises(ValueError, match=rf"\[batch, members={model.members}, \.\.\.\], got \[7"):
        model(examples(*shape), per_member=True)


@pytest.mark.parametrize("own_targets", [False, True])
@pytest.mark.parametrize("own_inputs", [False, True])
def test_losses_of_rows_are_those_of_the_outputs(model, own_inputs, own_targets):
    x = examples(7, model.members, 4) if own_inputs else examples(7, 4)
    targets = torch.randint(2, (7, model.members))
    if not own_targets:
        targets = targets[:, 0]
    rows = model.rows(x, per_member=own_inputs)
    row_targets = model.target_rows(targets, per_member=own_targets)
    losses = model.by_member(F.cross_entropy(rows, row_targets, reduction="none"))
    outputs = model(x, per_member=own_inputs)
    for index in range(model.members):
        own = targets[:, index] if own_targets else targets
        expected = F.cross_entropy(outputs[:, index], own, reduction="none")
        torch.testing.assert_close(losses[:, index], expected)


@pytest.mark.parametrize("own_targets", [False, True])
def test_targets_of_many_batches_are_ordered_like_those_of_each(model, own_targets):
    shape = (6, 7, model.members) if own_targets else (6, 7)
    targets = torch.randint(9, shape)
    together = model.target_rows(targets, per_member=own_targets)
    for own, batch in zip(together, targets, strict=True):
        assert torch.equal(own, model.target_rows(batch, per_member=own_targets))


def test_the_report_adds_up_to_all_parameters(model):
    counts = model.parameter_counts()
    total = sum(parameter.numel() for parameter in model.parameters())
    rows = model.report()
    assert counts["parameters"] == total
    assert sum(row.shared + model.members * row.per_member for row in rows) == total
    assert counts["parameters_per_member"] == sum(row.per_member for row in rows)
    plain = sum(parameter.numel() for parameter in model.member(0).parameters())
    assert counts["parameter_ratio"] == total / plain


def test_members_start_differently(model):
    outputs = model(examples(7, 4))
    for one in range(model.members):
        for other in range(one):
            assert not torch.allclose(outputs[:, one], outputs[:, other])


def test_gradients_reach_every_parameter(model):
    model(examples(7, 4)).pow(2).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_network_with_axes_before_the_last_keeps_them():
    for model in (be.Single(mlp()), be.DeepEnsemble(mlp(), 3), be.BatchEnsemble(mlp(), 3)):
        x = torch.randn(6, 9, 4)
        outputs = model(x)
        assert outputs.shape == (6, model.members, 9, 2)
        for index in range(model.members):
            torch.testing.assert_close(outputs[:, index], model.member(index)(x))


def test_weights_move_between_ensembles_by_their_state_dict():
    for make in MODELS.values():
        one, other = make(), make()
        other.load_state_dict(one.state_dict())
        x = torch.randn(7, 4)
        assert torch.equal(one(x), other(x))


def test_every_method_has_a_name():
    assert list(METHODS) == [
        "single",
        "deep",
        "batch",
        "mimo",
        "film",
        "last_layer",
        "masksembles",
        "mc_dropout",
        "tabm",
        "tabm_mini",
    ]
    assert all(issubclass(method.kind, Ensemble) for method in METHODS.values())
