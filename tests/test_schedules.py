"""Learning rates over the steps of a training."""

import pytest
import torch

from batchensemble.schedules import Plateau, Schedule


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
