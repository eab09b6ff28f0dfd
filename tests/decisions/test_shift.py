"""Scores under corruption: what each corruption does, and that it is the same every time."""

import numpy as np
import pytest
import torch

import batchensemble as be
from batchensemble.decisions.shift import blur, dropout, noise, under_shift


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    model = be.BatchEnsemble(net, members=3)
    be.fit(model, (X, y), epochs=8, lr=2e-2, progress=False)
    return model, X, y


@pytest.mark.parametrize("corruption", ["noise", "dropout"])
def test_a_stronger_corruption_takes_more_of_the_accuracy(trained, corruption):
    rows = under_shift(*trained, corruption)
    assert [row.strength for row in rows] == [0, 0.5, 1, 2, 4]
    accuracies = [row.accuracy for row in rows]
    assert accuracies[1:] == sorted(accuracies[1:], reverse=True)
    assert accuracies[0] > accuracies[-1] + 0.1
    assert rows[-1].nll > rows[0].nll


def test_without_corruption_the_scores_are_those_of_evaluate(trained):
    model, X, y = trained
    row = under_shift(model, X, y, strengths=(0.0,))[0]
    scores, prediction = be.evaluate(model, (X, y)), be.predict(model, X)
    assert (row.accuracy, row.nll, row.ece) == (scores["accuracy"], scores["nll"], scores["ece"])
    assert row.total == prediction.total.mean()
    assert row.aleatoric == prediction.aleatoric.mean()
    assert row.epistemic == prediction.epistemic.mean()


def test_the_seed_decides_and_the_inputs_stay(trained):
    model, X, y = trained
    before = X.copy()
    first = under_shift(model, X, y, strengths=(1.0, 2.0), seed=1)
    assert first == under_shift(model, X, y, strengths=(1.0, 2.0), seed=1)
    assert first != under_shift(model, X, y, strengths=(1.0, 2.0), seed=2)
    np.testing.assert_array_equal(X, before)


def test_noise_is_not_the_data_themselves_where_both_have_the_same_seed(trained):
    model, X, y = trained  # drawn with seed 0
    assert under_shift(model, X, y, strengths=(4.0,), seed=0)[0].accuracy < 0.8


def test_noise_is_in_deviations_of_each_column():
    rng = np.random.default_rng(0)
    X = rng.normal(scale=[1, 100], size=(5000, 2)).astype(np.float32)
    added = noise(X, 2.0, rng) - X
    assert added.dtype == np.float32
    assert added.std(0) / X.std(0) == pytest.approx([2, 2], rel=0.05)


def test_dropout_puts_half_of_the_numbers_to_the_mean_at_strength_1():
    rng = np.random.default_rng(0)
    X = rng.normal(loc=[0, 50], size=(5000, 2))
    lost = dropout(X, 1.0, rng) != X
    assert lost.mean(0) == pytest.approx([0.5, 0.5], abs=0.03)
    np.testing.assert_allclose(dropout(X, 1.0, rng).mean(0), X.mean(0), atol=0.1)


def test_blur_spreads_a_point_within_its_own_image():
    X = np.zeros((2, 1, 9, 9))
    X[0, 0, 4, 4] = 1
    found = blur(X, 1.0, np.random.default_rng(0))
    assert found[0].sum() == pytest.approx(1, abs=1e-3)
    assert 0.1 < found[0, 0, 4, 4] < 0.2
    assert not found[1].any()


def test_images_and_a_corruption_of_ones_own():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    model = be.BatchEnsemble(net, members=2)
    X, y = np.random.default_rng(0).integers(256, size=(6, 1, 4, 4)), [0, 1, 0, 1, 0, 1]

    def darker(X, strength, rng):
        return X / (1 + strength)

    assert [row.corruption for row in under_shift(model, X, y, darker, (0.0, 1.0))] == [
        "darker"
    ] * 2
    assert len(under_shift(model, torch.from_numpy(X), y, "blur", (0.0, 1.0))) == 2


def test_an_ensemble_of_numbers_is_refused(trained):
    _, X, y = trained
    model = be.BatchEnsemble(torch.nn.Linear(4, 1), members=2)
    be.fit(model, (X, X[:, :1]), loss="mse", epochs=1, progress=False)
    with pytest.raises(
        TypeError, match="takes ensembles that predict classes, got one that predicts Points"
    ):
        under_shift(model, X, y)


def test_wrong_calls_get_a_sentence(trained):
    model, X, y = trained
    with pytest.raises(
        ValueError, match="corruption must be one of noise, dropout, blur, got 'blu"
    ):
        under_shift(model, X, y, "blurr")
    with pytest.raises(ValueError, match="use noise or dropout for tables"):
        under_shift(model, X, y, "blur")
    with pytest.raises(ValueError, match=r"strengths must be finite and at least 0, got -1\.0"):
        under_shift(model, X, y, strengths=(-1.0,))
    with pytest.raises(
        ValueError, match=r"X must be numbers of the shape .* got float64 of the sh"
    ):
        under_shift(model, np.zeros(4), y)
    with pytest.raises(ValueError, match=r"labels must have the shape \[400\]"):
        under_shift(model, X, y[:3])
