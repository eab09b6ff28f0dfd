"""Calibrators are those that slow searches, scikit-learn and the formulas find."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from batchensemble.decisions.calibration.fitting import (
    FITS,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    fit_vector,
    nll,
    pooled,
)
from batchensemble.ensembles.calibrators import log_odds

WAYS = [("before", False), ("before", True), ("after", False)]


def outputs(examples=400, members=3, classes=4, sharpness=3.0, seed=0):
    """Return overconfident logits of members that differ, and classes they know something of."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(examples, 1, classes))
    labels = (truth[:, 0] + rng.gumbel(size=(examples, classes))).argmax(1)
    logits = sharpness * (truth + 0.7 * rng.normal(size=(examples, members, classes)))
    return torch.from_numpy(logits), torch.from_numpy(labels)


def slow_nll(logits, labels, temperatures):
    """Go through the examples and members one by one."""
    total = 0.0
    for row, label in zip(logits.numpy(), labels.tolist(), strict=True):
        probs = []
        for own, temperature in zip(row, temperatures, strict=True):
            powers = np.exp((own - own.max()) / temperature)
            probs.append(powers[label] / powers.sum())
        total -= np.log(np.mean(probs))
    return total / len(labels)


def test_the_likelihood_is_the_one_of_going_through_members():
    logits, labels = outputs(200)
    assert nll(None, logits, labels) == pytest.approx(slow_nll(logits, labels, [1, 1, 1]))
    own = fit_temperature(logits, labels, "before", per_member=True)
    expected = slow_nll(logits, labels, own.temperature.tolist())
    assert nll(own, logits, labels) == pytest.approx(expected)
    after = fit_temperature(logits, labels, "after")
    mean = pooled(logits).unsqueeze(1)
    expected = slow_nll(mean, labels, after.temperature.tolist())
    assert nll(after, logits, labels) == pytest.approx(expected)


@pytest.mark.parametrize("pooling", ["before", "after"])
@pytest.mark.parametrize("sharpness", [0.2, 3.0, 30.0])
def test_no_temperature_of_a_fine_grid_is_better(pooling, sharpness):
    logits, labels = outputs(sharpness=sharpness)
    found = fit_temperature(logits, labels, pooling)
    given = pooled(logits).unsqueeze(1) if pooling == "after" else logits
    best = min(
        nll(None, given / temperature, labels) for temperature in np.geomspace(0.0011, 999, 1000)
    )
    assert nll(found, logits, labels) <= best + 1e-9


def test_the_temperature_that_made_the_labels_is_found():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(40_000, 1, 3))
    labels = torch.from_numpy((logits[:, 0] / 2.5 + rng.gumbel(size=(40_000, 3))).argmax(1))
    for pooling in ("before", "after"):
        found = fit_temperature(torch.from_numpy(logits), labels, pooling)
        assert found.temperature.item() == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize("method", ["temperature", "vector"])
@pytest.mark.parametrize(("pooling", "per_member"), WAYS)
def test_nothing_is_made_worse_on_the_data_given(method, pooling, per_member):
    for seed, sharpness in ((0, 0.3), (1, 1.0), (2, 8.0)):
        logits, labels = outputs(60, sharpness=sharpness, seed=seed)
        found = FITS[method](logits, labels, pooling, per_member=per_member)
        common = FITS[method](logits, labels, pooling)
        assert nll(found, logits, labels) <= nll(None, logits, labels) + 1e-7
        assert nll(found, logits, labels) <= nll(common, logits, labels) + 1e-7


def test_vector_scaling_after_the_mean_is_a_logistic_regression():
    logits, labels = outputs(classes=3)
    found = fit_vector(logits, labels, "after")
    given = pooled(logits)

    def loss(parameters):
        weight, bias = torch.from_numpy(parameters).chunk(2)
        return float(torch.nn.functional.cross_entropy(given * weight + bias, labels))

    slow = minimize(loss, np.repeat([1.0, 0.0], 3), method="Nelder-Mead", options={"maxiter": 4000})
    assert nll(found, logits, labels) == pytest.approx(slow.fun, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("pooling", "per_member"), WAYS)
def test_platt_is_the_minimum_of_his_loss(classes, pooling, per_member):
    logits, labels = outputs(200, members=2, classes=classes)
    found = fit_platt(logits, labels, pooling, per_member=per_member)
    given = pooled(logits).unsqueeze(1) if pooling == "after" else logits
    groups = [[0], [1]] if per_member else [range(given.shape[1])]
    probs = given.softmax(2).numpy()
    for group, members in enumerate(groups):
        for number in range(classes):
            own = np.concatenate([probs[:, member, number] for member in members])
            odds = np.log(own / (1 - own))
            true = np.tile((labels == number).numpy(), len(members))
            target = np.where(true, (true.sum() + 1) / (true.sum() + 2), 1 / ((~true).sum() + 2))

            def loss(ab, odds=odds, target=target):
                score = ab[0] * odds + ab[1]
                return (np.logaddexp(0, score) - target * score).mean()

            slow = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7})
            mine = found.slope[group, number].item(), found.bias[group, number].item()
            assert mine == pytest.approx(slow.x, abs=1e-3)


def test_two_classes_need_no_normalising():
    logits, labels = outputs(classes=2)
    found = fit_platt(logits, labels, "after")
    odds = log_odds(pooled(logits), 1)
    direct = (odds * found.slope + found.bias).sigmoid()
    torch.testing.assert_close(found(pooled(logits)).softmax(1), direct, atol=1e-6, rtol=0)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("pooling", "per_member"), WAYS)
def test_isotonic_is_scikit_learns(classes, pooling, per_member):
    logits, labels = outputs(300, members=2, classes=classes)
    found = fit_isotonic(logits, labels, pooling, per_member=per_member)
    for seen, _ in (outputs(300, 2, classes), outputs(100, 2, classes, seed=9)):
        fitted = pooled(logits).unsqueeze(1) if pooling == "after" else logits
        given = pooled(seen).unsqueeze(1) if pooling == "after" else seen
        expected = np.empty(given.shape)
        for member in range(given.shape[1]):
            members = [member] if per_member or pooling == "after" else [0, 1]
            for number in range(classes):
                own = [fitted.softmax(2)[:, each, number].float().double() for each in members]
                true = np.tile((labels == number).numpy(), len(members))
                rising = IsotonicRegression(y_min=1 / 302, y_max=301 / 302, out_of_bounds="clip")
                rising.fit(torch.cat(own).numpy(), true)
                probs = given.softmax(2)[:, member, number].float().double().numpy()
                expected[:, member, number] = rising.predict(probs)
        expected /= expected.sum(2, keepdims=True)
        mine = found(pooled(seen) if pooling == "after" else seen).numpy()
        mine = np.exp(mine if pooling == "before" else mine[:, None])
        # The thresholds of a gap may be as near as float32 can tell, so a few points may be off.
        off = np.abs(mine - expected).max((1, 2)) > 1e-4
        assert off.mean() < 0.02


def test_what_is_told_apart_without_error_says_so_and_stays():
    logits = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]], dtype=torch.float64).repeat(20, 2, 1)
    labels = torch.tensor([0, 1]).repeat(20)
    with pytest.warns(UserWarning, match="they cannot determine the temperature, and 1 is kept"):
        found = fit_temperature(logits, labels, "before", per_member=True)
    assert found.temperature.tolist() == [1, 1]


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("pooling", ["before", "after"])
def test_certain_members_have_finite_likelihoods(method, pooling):
    logits, labels = outputs(200, sharpness=1000.0)
    found = FITS[method](logits, labels, pooling)
    assert np.isfinite(nll(found, logits, labels))
    assert nll(found, logits, labels) < 3  # from hundreds


def test_log_odds_are_precise_near_0_and_1():
    logits = torch.tensor([[0.0, -50.0, -60.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    found = log_odds(logits, 1)
    expected = [50 - np.log1p(np.exp(-10)), -50, -60]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-12)
    assert found[1].tolist() == pytest.approx([-np.log(2)] * 3)


@pytest.mark.parametrize("pooling", ["before", "after"])
@pytest.mark.parametrize("unit", [1e-7, 1e-3, 1e5, 1e9])
def test_the_temperature_goes_with_the_unit_of_the_logits(pooling, unit):
    logits, labels = outputs(sharpness=3.0)
    expected = fit_temperature(logits, labels, "before").temperature.item()
    found = fit_temperature(logits * unit, labels, "before").temperature.item()
    assert found / unit == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("pooling", ["before", "after"])
def test_outputs_that_tell_nothing_are_said_to(pooling):
    """So are those that have the classes the wrong way round, or in another order."""
    logits, labels = outputs(sharpness=1.0)
    for given, true in ((-logits, labels), (logits, (labels + 1) % logits.shape[2])):
        with pytest.warns(
            UserWarning, match=r"outputs are uninformative.* nearly gives them, is used"
        ):
            found = fit_temperature(given, true, pooling)
        assert nll(found, given, true) == pytest.approx(np.log(logits.shape[2]), abs=1e-3)
    with pytest.warns(UserWarning, match="outputs are uninformative"):
        fit_temperature(-logits, labels, "before", per_member=True)


@pytest.mark.parametrize("method", ["temperature", "vector"])
@pytest.mark.parametrize("value", [0.0, 1e6])
def test_equal_logits_are_not_called_significance(method, value):
    logits, labels = torch.full((60, 3, 4), value, dtype=torch.float64), torch.arange(60) % 4
    if method == "vector":  # its biases are the classes' shares
        found = FITS[method](logits, labels % 2, "before")
        probs = found(logits).softmax(2)[0, 0].tolist()
        assert probs == pytest.approx([0.5, 0.5, 0, 0], abs=1e-3)
        return
    with pytest.warns(
        UserWarning, match="outputs are the same for all classes.* 1 is kept"
    ) as said:
        found = FITS[method](logits, labels, "before")
    assert "correctly" not in str(said[0].message)
    assert found.temperature.tolist() == [1.0]


def test_members_that_are_right_in_turn_are_not_called_all_right():
    """The mixture is surest where each example has one member that is right, and NLL says so."""
    labels = torch.arange(40) % 2
    logits = torch.zeros(40, 2, 2, dtype=torch.float64)
    logits[torch.arange(40), 0, labels] = 3.0
    logits[torch.arange(40), 1, labels] = torch.where(torch.arange(40) < 6, -3.0, 3.0).double()
    with pytest.warns(UserWarning, match="at least one member predicts all 40"):
        fit_temperature(logits, labels, "before")
    logits[:, 1] = logits[:, 0]
    with pytest.warns(UserWarning, match="every member predicts all 40"):
        fit_temperature(logits, labels, "before")


def test_a_member_whose_temperature_ends_at_its_bound_is_named():
    logits, labels = outputs(400, sharpness=1.0)
    logits[:, 1] = -logits[:, 1]
    with pytest.warns(
        UserWarning, match=r"where these stopped: [\d.e+]+ of member 1; use per_member="
    ):
        fit_temperature(logits, labels, "before", per_member=True)


@pytest.mark.parametrize("pooling", ["before", "after"])
def test_weights_are_not_carried_to_certainty(pooling):
    logits = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]], dtype=torch.float64).repeat(20, 2, 1)
    labels = torch.tensor([0, 1]).repeat(20)
    with pytest.warns(
        UserWarning, match="they cannot determine the weights of the classes, and 1 is"
    ):
        found = FITS["vector"](logits, labels, pooling)
    assert found.weight.tolist() == [[1, 1]]
    assert found.bias.tolist() == [[0, 0]]


@pytest.mark.parametrize("unit", [1e-6, 1e4])
def test_platts_slope_goes_with_the_unit_of_the_logits(unit):
    logits, labels = outputs(sharpness=3.0)
    expected = FITS["platt"](logits[:, :1, :2], labels % 2, "before").slope
    found = FITS["platt"](unit * logits[:, :1, :2], labels % 2, "before").slope
    torch.testing.assert_close(found * unit, expected, rtol=1e-3, atol=1e-4)
