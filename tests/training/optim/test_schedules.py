"""Learning rates over the steps of a training."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import batchensemble as be
from batchensemble.training.optim.schedules import Plateau, Schedule


@pytest.mark.parametrize(
    ("share", "rates"),
    [
        (0.0, [1.0, 1.0, 1.0, 1.0]),
        (0.5, [1.0, 1.0, 1.0, 0.5]),
        (1.0, [1.0, 0.75, 0.5, 0.25]),
    ],
)
def test_it_falls_in_a_straight_line_over_its_share_of_the_steps(share, rates):
    schedule = Schedule(steps=4, cooldown=share)
    assert [schedule.at(step) for step in range(4)] == rates


def test_it_rises_in_a_straight_line_while_warming_up():
    schedule = Schedule(steps=None, warmup=4)
    assert [schedule.at(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20)),
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 1e-12, 20)),
        (
            "one_cycle",
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, 20),
        ),
    ],
)
def test_the_shapes_are_torchs(shape, make):
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler, schedule = make(optimiser), Schedule(steps=20, shape=shape)
    rates = []
    for _ in range(20):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if len(rates) < 20:
            scheduler.step()
    assert [schedule.at(step) for step in range(20)] == pytest.approx(rates, abs=1e-9)


def test_warm_up_and_cool_down_go_with_any_shape():
    schedule = Schedule(steps=10, shape="linear", cooldown=0.2, warmup=2)
    assert schedule.at(0) == pytest.approx(0.5)
    assert schedule.at(9) == pytest.approx(0.1 * 0.5)


@pytest.mark.parametrize("options", [{"cooldown": 0.1}, {"shape": "cosine"}])
def test_without_a_length_only_a_constant_rate_will_do(options):
    with pytest.raises(TypeError, match="the data must know their length"):
        Schedule(None, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"factor": 1.0}, "factor must be below 1, got 1.0"),
        ({"factor": 0.0}, "factor must be a finite number above 0"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_a_plateau_has_to_lower_the_rate(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Plateau(**options)


class Stream(IterableDataset):
    """Rows of which nobody knows how many there are."""

    def __iter__(self):
        torch.manual_seed(0)
        yield from zip(torch.randn(20, 2), torch.randint(3, (20,)), strict=True)


@pytest.mark.parametrize("form", [Stream, lambda: DataLoader(Stream(), 4)])
def test_without_a_length_there_is_no_cooldown_and_that_is_said(form):
    def trained(**options):
        torch.manual_seed(1)
        model = be.Single(nn.Linear(2, 3))
        be.fit(model, form(), epochs=2, batch_size=4, lr=0.1, **options)
        return model.state_dict()

    with pytest.warns(UserWarning, match=r"not know their number of batches.*cooldown=0"):
        found = trained()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = trained(cooldown=0.0)
        trained(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    with pytest.raises(TypeError, match="the data must know their length"):
        trained(cooldown=0.1)


def test_with_a_length_the_cooldown_is_a_tenth_as_it_was():
    x, y = torch.randn(20, 2), torch.randint(3, (20,))
    found = []
    for options in ({}, {"cooldown": 0.1}, {"cooldown": 0.0}):
        torch.manual_seed(1)
        model = be.Single(nn.Linear(2, 3))
        be.fit(model, (x, y), epochs=4, batch_size=4, lr=0.1, **options)
        found.append(model.network.weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine", "one_cycle"])
@pytest.mark.parametrize("steps", [1, 7, 400])
def test_where_time_runs_out_first_the_rate_follows_the_time(shape, steps):
    plain = Schedule(steps, shape, cooldown=0.25)
    timed = Schedule(steps, shape, cooldown=0.25, timed=True)
    for step in range(steps):
        assert timed.at(step) == plain.at(step)
        assert timed.at(step, 0.5 * step / steps) == plain.at(step)  # time enough
    assert timed.at(0, 1.0) == timed.at(0, 1.5) == 0
    middle = steps // 2
    if steps > 1:
        assert timed.at(0, middle / steps) == pytest.approx(plain.at(middle))


def test_without_a_number_of_steps_the_rate_follows_the_time_alone():
    timed = Schedule(None, cooldown=0.2, timed=True)
    assert timed.at(10**6, 0.5) == 1
    assert timed.at(0, 0.9) == pytest.approx(0.5)
    assert timed.at(0, 1.1) == 0
    rising = Schedule(None, "one_cycle", timed=True)
    assert rising.at(5, 0.1) < rising.at(5, 0.3) > rising.at(5, 0.9)
