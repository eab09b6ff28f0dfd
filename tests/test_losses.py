"""Losses of every member on every example are those computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from batchensemble.losses import cross_entropy, ensemble_nll, make_loss

LOG_ODDS = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]], [[0.0, math.log(4.0)], [9.0, 9.0]]])
"""Two examples, two members; probabilities 3/4 1/4, 1/2 1/2; 1/5 4/5, 1/2 1/2."""


def test_cross_entropy_is_minus_the_log_of_the_true_class_probability():
    losses = cross_entropy(LOG_ODDS, torch.tensor([0, 1]))
    expected = -torch.log(torch.tensor([[3 / 4, 1 / 2], [4 / 5, 1 / 2]]))
    torch.testing.assert_close(losses, expected)


def test_each_member_may_have_its_own_target():
    losses = cross_entropy(LOG_ODDS, torch.tensor([[0, 1], [0, 1]]))
    expected = -torch.log(torch.tensor([[3 / 4, 1 / 2], [1 / 5, 1 / 2]]))
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("own", [False, True])
def test_members_losses_are_those_of_torch_one_by_one(own):
    outputs = torch.randn(6, 3, 4)
    targets = torch.randint(4, (6, 3) if own else (6,))
    losses = cross_entropy(outputs, targets)
    for member in range(3):
        mine = targets[:, member] if own else targets
        expected = F.cross_entropy(outputs[:, member], mine, reduction="none")
        torch.testing.assert_close(losses[:, member], expected)


def test_ensemble_nll_is_of_the_mean_probability_not_of_the_mean_logit():
    nll = ensemble_nll(LOG_ODDS, torch.tensor([0, 0]))
    torch.testing.assert_close(nll, -torch.log(torch.tensor([5 / 8, (1 / 5 + 1 / 2) / 2])))


def test_ensemble_nll_stays_finite_where_probabilities_underflow():
    outputs = torch.tensor([[[0.0, 1000.0], [0.0, 1000.0]]])
    assert ensemble_nll(outputs, torch.tensor([0])).item() == 1000.0


def test_the_loss_on_mean_logits_is_that_of_the_members_mean_output():
    outputs, targets = torch.randn(6, 3, 4), torch.randint(4, (6,))
    losses = make_loss("cross_entropy", "mean_logits")(outputs, targets)
    assert losses.shape == (6, 1)
    expected = F.cross_entropy(outputs.mean(1), targets, reduction="none")
    torch.testing.assert_close(losses[:, 0], expected)


def test_a_function_of_ones_own_is_taken_as_it_is():
    def squared(outputs, targets):
        return (outputs - targets[:, None, None]).pow(2).mean(-1)

    assert make_loss(squared) is squared
    outputs, targets = torch.randn(6, 3, 1), torch.randn(6)
    losses = make_loss(squared, "mean_logits")(outputs, targets)
    torch.testing.assert_close(losses[:, 0], (outputs.mean(1)[:, 0] - targets).pow(2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cross_entropie",), "loss must be one of cross_entropy.* did you mean 'cross_entropy'"),
        (("mse",), "loss must be one of cross_entropy, got 'mse'"),
    ],
)
def test_an_unknown_loss_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_loss(*arguments)
