"""Predictions are the members' probabilities, and their uncertainties those done by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.ensembles import METHODS

torch.manual_seed(0)
X, Y = torch.randn(20, 4), torch.randint(3, (20,))


def build(method, *between):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *between, nn.Linear(8, 3))
    return METHODS[method].build(network, 4)


def entropy(*probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def test_uncertainties_are_the_entropies_done_by_hand():
    prediction = be.Prediction(
        np.array(
            [
                [[0.9, 0.1], [0.5, 0.5]],  # partly unsure, partly in conflict
                [[1.0, 0.0], [0.0, 1.0]],  # each sure, all conflict
                [[0.5, 0.5], [0.5, 0.5]],  # all unsure, no conflict
                [[1.0, 0.0], [1.0, 0.0]],  # sure
            ]
        )
    )
    assert prediction.probs.tolist() == [[0.7, 0.3], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]
    assert prediction.labels.tolist() == [0, 0, 0, 0]
    total = [entropy(0.7, 0.3), math.log(2), math.log(2), 0.0]
    aleatoric = [(entropy(0.9, 0.1) + math.log(2)) / 2, 0.0, math.log(2), 0.0]
    assert prediction.total == pytest.approx(total)
    assert prediction.aleatoric == pytest.approx(aleatoric)
    assert prediction.epistemic == pytest.approx(np.subtract(total, aleatoric))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 6), st.floats(0.01, 300))
def test_uncertainties_are_between_0_and_the_log_of_the_classes(seed, members, classes, scale):
    logits = scale * np.random.default_rng(seed).normal(size=(7, members, classes))
    prediction = be.Prediction(torch.from_numpy(logits).softmax(-1).numpy())
    for values in (prediction.total, prediction.aleatoric, prediction.epistemic):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (values <= math.log(classes) + 1e-12).all()
    np.testing.assert_allclose(
        prediction.total, prediction.aleatoric + prediction.epistemic, atol=1e-12
    )


def test_one_member_has_no_epistemic_uncertainty():
    assert (be.predict(build("single"), X).epistemic == 0).all()


def test_members_that_agree_have_no_epistemic_uncertainty():
    alike = be.predict(build("single"), X).member_probs.repeat(5, 1)
    np.testing.assert_allclose(be.Prediction(alike).epistemic, 0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_member_probabilities_are_the_members_softmax(method):
    model = build(method)
    prediction = be.predict(model, X)
    assert (len(prediction), prediction.members) == (20, model.members)
    for index in range(model.members):
        expected = model.member(index)(X).softmax(-1).detach().numpy()
        np.testing.assert_allclose(prediction.member_probs[:, index], expected, atol=1e-6)


@pytest.mark.parametrize(
    "data",
    [
        X.numpy(),
        X.double(),
        X.tolist(),
        DataLoader(TensorDataset(X, Y), 7),
        DataLoader(TensorDataset(X), 7),
        DataLoader(X, 7),
    ],
    ids=["array", "other precision", "list", "pairs", "singles", "inputs"],
)
def test_every_form_of_data_gives_the_same_prediction(data):
    model = build("batch")
    expected = be.predict(model, X).member_probs
    np.testing.assert_allclose(be.predict(model, data).member_probs, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_the_batch_size_changes_nothing(batch_size):
    model = build("mimo")
    expected = be.predict(model, X).member_probs
    ours = be.predict(model, X, batch_size=batch_size).member_probs
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_restored(training):
    model = build("deep", nn.Dropout(0.5)).train(training)
    one, two = be.predict(model, X), be.predict(model, X)
    assert (one.member_probs == two.member_probs).all()
    assert all(module.training is training for module in model.modules())


def test_the_mode_is_restored_after_an_error_too():
    model = build("deep").train()
    with pytest.raises(ValueError, match="does not take examples"):
        be.predict(model, X[:, :3])
    assert model.training


def test_batch_norm_statistics_stay():
    model = be.DeepEnsemble(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), 2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    be.predict(model, X)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_very_sure_network_keeps_probabilities_that_float32_would_round_to_0():
    network = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0], [200.0]]))
    probability = be.predict(be.Single(network), np.ones((1, 1))).probs[0, 0]
    assert math.log(probability) == pytest.approx(-200)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_any_precision_give_probabilities_that_sum_to_1(dtype):
    probs = be.predict(build("batch").to(dtype), X).probs
    assert probs.dtype == np.float64
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        (X[:0], ValueError, "at least one example, got none"),
        (X[:, :3], ValueError, r"does not take examples of shape \[3\]"),
        (X[0], ValueError, r"X must have the shape \[examples, features...\], got \[4\]"),
        (X * np.nan, ValueError, "X must be finite, got nan in row 1, X\\[0, 0\\]"),
        (np.full((3, 4), "a"), TypeError, "X must hold numbers"),
        (3, ValueError, "X must have the shape"),
        (DataLoader(X[:0], 5), ValueError, "at least one example to predict, got none"),
        (DataLoader(X[:, :3], 5), ValueError, r"does not take examples of shape \[3\]"),
    ],
)
def test_bad_data_are_refused(data, error, sentence):
    with pytest.raises(error, match=sentence):
        be.predict(build("batch"), data)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_bad_batch_size_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        be.predict(build("batch"), X, batch_size=batch_size)


def test_further_axes_are_entries_with_a_class_each():
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(4, 6), nn.Unflatten(-1, (2, 3))), 3)
    prediction = be.predict(model, X)
    assert prediction.probs.shape == (20, 2, 3)
    assert prediction.labels.shape == prediction.total.shape == (20, 3)
    np.testing.assert_allclose(prediction.probs.sum(1), 1)


def test_one_output_is_no_class_probability():
    with pytest.raises(ValueError, match="at least 2 classes"):
        be.predict(be.Single(nn.Linear(4, 1)), X)


def test_a_dataset_is_read_in_its_order():
    model = build("batch")
    expected = be.predict(model, X).member_probs
    np.testing.assert_allclose(be.predict(model, TensorDataset(X, Y)).member_probs, expected)
