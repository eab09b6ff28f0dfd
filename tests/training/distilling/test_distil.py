"""One network distilled from an ensemble predicts as it does, through the same functions."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be

torch.manual_seed(0)
X = torch.randn(120, 3)
NEW = torch.randn(200, 3)
NUMBERS = X[:, 0].numpy()
STANDARDISED = be.losses.Standardised(be.losses.GaussianNLL(), [50.0, -3.0], [10.0, 2.0])
# loss of the ensemble, outputs of its networks, outputs of the distilled one, targets.
KINDS = {
    "classes": ("cross_entropy", 3, 4, X.argmax(1)),
    "ordered classes": ("ordinal", 2, 4, X.argmax(1)),
    "labels": ("binary_cross_entropy", 2, 4, (X[:, :2] > 0).float()),
    "one label": ("binary_cross_entropy", 1, 2, (X[:, 0] > 0).float()),
    "normals": ("gaussian_nll", 2, 3, X[:, 0]),
    "standardised normals": (STANDARDISED, 4, 6, X[:, :2] * 10),
    "numbers": ("mse", 1, 2, X[:, 0]),
    "robust numbers": (be.losses.Huber(), 2, 4, X[:, :2]),
}
QUICK = {"synthetic": 300, "epochs": 1, "progress": False}


def network(outputs, seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, outputs))


def ensemble(name="classes", members=5):
    loss, outputs, _, _ = KINDS[name]
    model = be.DeepEnsemble(network(outputs), members).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(2)  # members that differ
    model.loss = be.losses.as_loss(loss)
    return model


def weights(model):
    return torch.cat([each.flatten() for each in model.parameters()])


@pytest.mark.parametrize("name", KINDS)
def test_a_distilled_network_is_scored_saved_and_loaded_as_any(name, tmp_path):
    _, outputs, wider, targets = KINDS[name]
    model = ensemble(name)
    student = be.distil(model, network(outputs), (X, targets), **QUICK)
    assert student.members == 1
    assert student.member(0)(X).shape == (120, wider)
    found, whole = be.predict(student, NEW), be.predict(model, NEW)
    assert found.total.shape == whole.total.shape
    np.testing.assert_allclose(found.aleatoric + found.epistemic, found.total, atol=1e-12)
    assert (found.epistemic > 0).all()
    scores = be.evaluate(student, (X, targets))
    assert set(scores) == set(be.evaluate(model, (X, targets)))
    be.save(student, tmp_path)
    for loaded in (be.load(tmp_path), be.load(tmp_path, network=network(outputs))):
        assert loaded.loss == student.loss
        assert np.array_equal(be.predict(loaded, NEW).epistemic, found.epistemic)


@pytest.mark.parametrize("name", ["classes", "labels", "normals", "standardised normals"])
def test_it_learns_mean_and_spread(name):
    model = ensemble(name)
    options = {"synthetic": 4000, "epochs": 12, "lr": 1e-2, "progress": False}
    student = be.distil(model, network(KINDS[name][1], seed=2), X, **options)
    whole, found = be.predict(model, NEW), be.predict(student, NEW)
    for part in ("total", "aleatoric", "epistemic"):
        a, b = getattr(whole, part).ravel(), getattr(found, part).ravel()
        assert np.corrcoef(a, b)[0, 1] > 0.8, part
        assert 0.7 < b.mean() / a.mean() < 1.3, part
    mean = (lambda p: p.probs) if name in ("classes", "labels") else (lambda p: p.mean)
    assert np.corrcoef(mean(whole).ravel(), mean(found).ravel())[0, 1] > 0.9


def test_labels_are_not_used_and_data_may_come_in_any_form():
    model = ensemble()
    frame = pd.DataFrame(X.numpy(), columns=list("abc")).assign(kind=np.arange(120) % 3)
    loader = DataLoader(TensorDataset(X, torch.zeros(120, dtype=torch.long)), batch_size=50)
    expected = weights(be.distil(model, network(3), X, **QUICK))
    for data, options in (
        ((X, X.argmax(1)), {}),
        ((X.numpy(), None), {}),
        (frame, {"target": "kind"}),
        (loader, {}),
    ):
        assert torch.equal(
            weights(be.distil(model, network(3), data, **options, **QUICK)), expected
        )


def test_names_of_columns_and_classes_are_kept():
    model = ensemble()
    model.feature_names, model.class_names = ("a", "b", "c"), ("x", "y", "z")
    frame = pd.DataFrame(X.numpy(), columns=list("abc"))
    student = be.distil(model, network(3), frame[["c", "a", "b"]], **QUICK)
    assert (student.feature_names, student.class_names) == (("a", "b", "c"), ("x", "y", "z"))
    assert np.array_equal(be.predict(student, frame).probs, be.predict(student, X).probs)


def test_it_changes_neither_the_ensemble_nor_the_network_nor_random_draws():
    model, plain = ensemble(), network(3)
    before, start, state = weights(model).clone(), copy.deepcopy(plain), torch.get_rng_state()
    be.distil(model, plain, X, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(model), before)
    assert torch.equal(weights(plain), weights(start))
    assert plain[2].out_features == 3
    assert model.loss == be.losses.CrossEntropy()


def test_a_network_may_have_all_outputs_already():
    student = be.distil(ensemble(), network(4), X, **QUICK)
    assert student.member(0)[2].out_features == 4
    with pytest.raises(ValueError, match=r"outputs of the shape \[3\], .* or 4 .*; got \[7\]"):
        be.distil(ensemble(), network(7), X, **QUICK)


def test_a_last_layer_of_another_kind_is_loaded_as_it_is(tmp_path):
    def scaled():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    student = be.distil(ensemble(), scaled(), X, **QUICK)
    again = be.load(be.save(student, tmp_path), network=scaled())
    assert torch.equal(again(X), student(X))


def test_validation_stops_early_and_checkpoints_resume(tmp_path):
    options = {**QUICK, "epochs": 3, "validation": NEW, "patience": 1}
    first = be.distil(ensemble(), network(3), X, **options, checkpoints=tmp_path)
    again = be.distil(ensemble(), network(3), X, **options, checkpoints=tmp_path, resume=True)
    assert torch.equal(weights(first), weights(again))


def test_tokens_and_several_inputs():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(20, 8), nn.Conv1d(8, 3, 1)

        def forward(self, ids, scale):
            return self.head(self.words(ids).transpose(1, 2) * scale[:, :1, None])

    torch.manual_seed(0)
    ids = torch.randint(20, (30, 6))
    data = {"ids": ids, "scale": torch.rand(30, 1)}
    model = be.DeepEnsemble(Tagger(), members=3, stacked=False)
    y = torch.where(ids > 15, -1, ids % 3)
    be.fit(model, (data, y), epochs=1, ignore_index=-1, progress=False)
    plain = Tagger()
    student = be.distil(model, plain, data, **QUICK)
    found = be.predict(student, data)
    assert found.epistemic.shape == (30, 6)
    assert student.member(0).head.out_channels == 4
    scores = be.evaluate(student, (data, y))
    assert scores["mutual_information"] == pytest.approx(found.epistemic[y.numpy() >= 0].mean())
    by_position = be.distil(model, plain, ((ids, data["scale"]), None), **QUICK)
    assert torch.equal(weights(by_position), weights(student))


def test_a_table_of_an_estimator():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(size=90), "job": rng.choice(["a", "b", "c"], 90)})
    y = np.where(table["job"] == "a", "yes", "no")
    estimator = be.BatchEnsembleClassifier(members=3, epochs=2, random_state=0).fit(table, y)
    model = estimator.model_
    student = be.distil(model, model.member(0), table, **QUICK)
    assert be.predict(student, table).probs.shape == (90, 2)
    assert student.encoding == model.encoding


def test_what_cannot_be_distilled_is_refused():
    model = ensemble()
    with pytest.raises(TypeError, match="loss= is not for distil: the ensemble gives the targets"):
        be.distil(model, network(3), X, loss="mse")
    with pytest.raises(ValueError, match=r"mixing must be .*got 'other'"):
        be.distil(model, network(3), X, mixing="other")
    with pytest.raises(ValueError, match="makes no synthetic inputs"):
        be.distil(model, network(3), X, mixing="none", synthetic=3)
    with pytest.raises(ValueError, match="more than memory_limit=1,000 bytes"):
        be.distil(model, network(3), X, memory_limit=1000)
    with pytest.raises(ValueError, match="the last layer of the network must be linear"):
        be.distil(model, nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), X)
    model.loss = be.losses.Quantile([0.1, 0.5, 0.9])
    with pytest.raises(ValueError, match=r"can be distilled, got .*Quantile"):
        be.distil(model, network(3), X)


def test_what_is_lost_is_said():
    student = be.distil(ensemble(), network(3), X, **QUICK)
    found = be.predict(student, X)
    for name in ("variance", "pairwise_kl"):
        with pytest.raises(ValueError, match="not what each member predicts"):
            getattr(found, name)
    with pytest.raises(ValueError, match="calibrat"):
        be.calibrate(student, (X, X.argmax(1)))


def test_the_plain_network_can_be_exported():
    student = be.distil(ensemble(), network(3), X, **QUICK)

    class WithUncertainty(nn.Module):
        def __init__(self, plain, loss):
            super().__init__()
            self.plain, self.loss = plain, loss

        def forward(self, x):
            probs, share = self.loss.distribution(self.plain(x)[:, None])
            return probs[:, 0], share[:, 0] * torch.special.entr(probs).sum(2)[:, 0]

    module = WithUncertainty(student.member(0), student.loss).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (X[:4],), dynamic_shapes=({0: batch},))
    probs, epistemic = program.module()(NEW)
    expected = be.predict(student, NEW)
    np.testing.assert_allclose(probs.detach(), expected.probs, atol=1e-6)
    np.testing.assert_allclose(epistemic.detach(), expected.epistemic, atol=1e-6)
