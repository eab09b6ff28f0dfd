"""The benchmark of lifelong learning: its tasks, its scores, and EWC's penalty."""

import pytest
import torch
from torch import nn

from benchmarks.learning.data import CLASSES, TASKS, tasks_of
from benchmarks.learning.methods import Anchor, network
from benchmarks.learning.runs import forgetting, interval


@pytest.mark.parametrize("kind", TASKS)
def test_tasks_fit_their_network(kind):
    tasks = tasks_of(kind, seed=0)
    assert len(tasks) == TASKS[kind]
    for task in tasks:
        for X, y in (task.train, task.validation, task.test):
            assert len(X) == len(y)
            assert y.unique().tolist() == list(range(CLASSES[kind]))
    with torch.no_grad():
        assert network(kind).eval()(tasks[-1].test[0][:3]).shape == (3, CLASSES[kind])


def test_each_digit_is_in_two_pairs():
    assert sum(len(task.train[0]) for task in tasks_of("split", seed=1)) == 2 * 5_000


def test_forgetting_is_what_was_lost_since_a_task_was_learnt():
    # avalanche leaves the last task out, which nothing could have been forgotten of.
    assert forgetting([[0.9], [0.7, 0.8], [0.5, 0.9, 1.0]]) == pytest.approx((0.4 - 0.1) / 2)


def test_intervals():
    assert interval([0.5]) == "0.500"
    assert interval([0.4, 0.5, 0.6]) == "0.500 ± 0.248"
    assert interval([0.0, 0.0]) == "0"


def test_the_pull_of_ewc_is_the_gradient_of_its_penalties():
    torch.manual_seed(0)
    body = nn.Linear(3, 2)
    anchor, penalties = Anchor(body, 2.0), []
    for _ in range(2):
        information = [torch.rand_like(each) for each in body.parameters()]
        penalties.append((information, [each.detach().clone() for each in body.parameters()]))
        anchor.add(information)
        with torch.no_grad():
            for each in body.parameters():
                each.add_(torch.randn_like(each))
    loss = sum(
        (2.0 / 2 * held * (each - then) ** 2).sum()
        for information, before in penalties
        for held, each, then in zip(information, body.parameters(), before, strict=True)
    )
    expected = torch.autograd.grad(loss, list(body.parameters()))
    for each in body.parameters():
        each.grad = torch.zeros_like(each)
    anchor.pull()
    for each, wanted in zip(body.parameters(), expected, strict=True):
        torch.testing.assert_close(each.grad, wanted)
