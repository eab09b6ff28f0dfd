"""A file gives what the model gives, at any batch size, and is not written otherwise."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.core.inputs import Nested
from batchensemble.decisions.uncertainty_score import uncertainty_score
from batchensemble.ensembles.calibrators import Isotonic, Temperature, Vector
from batchensemble.exports import checking
from batchensemble.exports.checking import ExportError
from batchensemble.exports.metadata import threshold_as_json
from batchensemble.exports.prediction_graph import prediction_graph
from batchensemble.losses import (
    MSE,
    BinaryCrossEntropy,
    CrossEntropy,
    DistilledClasses,
    DistilledLabels,
    DistilledNormals,
    DistilledPoints,
    GaussianNLL,
    Ordinal,
    Quantile,
)
from batchensemble.losses.standardised import Standardised
from batchensemble.predictions.predict import model_loss

pytestmark = pytest.mark.usefixtures("as_users_run_it")

FEATURES = 4


def perceptron(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, outputs))


def ensemble(outputs: int, members: int = 3, loss=None) -> be.BatchEnsemble:
    model = be.BatchEnsemble(perceptron(outputs), members, init="normal", std=0.5).eval()
    model.loss = loss
    return model


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(count))


def run(path, **inputs) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def program(path):
    found = torch.export.load(path).module()
    return lambda *inputs: {name: each.detach().numpy() for name, each in found(*inputs).items()}


def metadata(path) -> dict:
    return json.loads(
        {each.key: each.value for each in onnx.load(path).metadata_props}["batchensemble"]
    )


def same(given, wanted) -> None:
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)


def graph_of(model, x, levels=()) -> dict[str, np.ndarray]:
    """What a graph gives before it is traced, which takes a second; all that it can give."""
    graph = prediction_graph(model_loss(model, None), model.calibrator, levels)
    plain = model if model.calibrator is None else model.uncalibrated()
    with torch.no_grad():
        return {name: each.numpy() for name, each in graph(plain(x)).items()}


def test_the_file_gives_the_prediction_and_its_uncertainty(tmp_path):
    model = ensemble(3)
    model.class_names = ("a", "b", "c")
    found = be.export(
        model, tmp_path / "m.onnx", rows(2), ("mean", "epistemic", "label"), members=True
    )
    x = rows(7)
    given, wanted = run(found.path, input=x.numpy()), be.predict(model, x)
    assert list(given) == ["mean", "epistemic", "label", "members"] == list(found.outputs)
    same(given["mean"], wanted.probs)
    same(given["epistemic"], wanted.epistemic)
    assert (given["label"] == wanted.labels).all()
    same(given["members"], wanted.member_probs)
    assert found.largest_difference < 1e-5
    assert set(found.differences) == {1, 3, 64}
    assert "largest difference" in str(found)
    said = metadata(found.path)
    assert said["class_names"] == ["a", "b", "c"]
    assert said["members"] == 3
    assert "nats" in said["outputs"]["epistemic"]


LOSSES = {
    "classes": (CrossEntropy(), 3),
    "ordered classes": (Ordinal(), 3),
    "labels": (BinaryCrossEntropy(), 3),
    "one label": (BinaryCrossEntropy(), 1),
    "numbers": (MSE(), 1),
    "several numbers": (MSE(), 2),
    "normals": (GaussianNLL(), 2),
    "standardised": (Standardised(GaussianNLL(), [1e4], [20.0]), 2),
    "several standardised": (Standardised(GaussianNLL(), [1e4, 1.0], [20.0, 0.1]), 4),
    "quantiles": (Quantile((0.9, 0.1, 0.5)), 3),
    "standardised quantiles": (Standardised(Quantile((0.1, 0.9)), [5.0, 1.0], [2.0, 3.0]), 4),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_each_kind_of_prediction_has_its_numbers(kind):
    loss, outputs = LOSSES[kind]
    model = ensemble(outputs, loss=loss)
    x = rows(7)
    wanted = be.predict(model, x)
    numbers = isinstance(wanted, be.RegressionPrediction)
    levels = (0.1, 0.4, 0.9) if numbers else ()
    given = graph_of(model, x, levels)
    same(given["mean"], wanted.mean if numbers else wanted.probs)
    for name in ("total", "aleatoric", "epistemic"):
        same(given[name], getattr(wanted, name))
    same(given["members"], wanted.member_means if numbers else wanted.member_probs)
    for place, level in enumerate(levels):
        same(given["quantiles"][:, place], wanted.quantile(level))


DISTILLED = {
    "classes": (DistilledClasses(), 4),
    "labels": (DistilledLabels(), 6),
    "one label": (DistilledLabels(), 2),
    "normals": (DistilledNormals(), 3),
    "standardised normals": (Standardised(DistilledNormals(), [1e4, 1.0], [20.0, 0.1]), 6),
    "numbers": (DistilledPoints(), 4),
    "standardised number": (Standardised(DistilledPoints(), [5.0], [2.0]), 2),
}


@pytest.mark.parametrize("kind", DISTILLED)
def test_a_distilled_network_divides_its_uncertainty_by_its_own_outputs(kind):
    loss, outputs = DISTILLED[kind]
    model = be.Single(perceptron(outputs)).eval()
    model.loss = loss
    x = rows(7)
    given, wanted = graph_of(model, x), be.predict(model, x)
    numbers = isinstance(wanted, be.RegressionPrediction)
    same(given["mean"], wanted.mean if numbers else wanted.probs)
    for name in ("total", "aleatoric", "epistemic"):
        same(given[name], getattr(wanted, name))
    assert (given["epistemic"] > 0).all()


def test_quantiles_in_the_unit_of_the_target_are_in_the_file(tmp_path):
    model = ensemble(2, loss=Standardised(GaussianNLL(), [100.0], [8.0]))
    found = be.export(model, tmp_path / "m.onnx", rows(2), "mean", quantiles=(0.05, 0.5))
    given, wanted = run(found.path, input=rows(5).numpy()), be.predict(model, rows(5))
    same(given["mean"], wanted.mean)
    same(given["quantiles"][:, 0], wanted.quantile(0.05))
    assert metadata(found.path)["quantiles"] == [0.05, 0.5]


def test_labels_are_in_the_file(tmp_path):
    model = ensemble(3, loss=BinaryCrossEntropy())
    found = be.export(model, tmp_path / "m.pt2", rows(2), ("mean", "epistemic", "label"))
    given, wanted = program(found.path)(rows(7)), be.predict(model, rows(7))
    same(given["mean"], wanted.probs)
    same(given["epistemic"], wanted.epistemic)
    assert (given["label"] == wanted.labels).all()


CALIBRATORS = {
    "temperature": lambda when: Temperature(when, torch.tensor([2.0])),
    "vector": lambda when: Vector(when, torch.tensor([[1.0, 2, 3]]), torch.tensor([[0.1, 0, 0]])),
    "isotonic": lambda when: Isotonic(
        when,
        torch.tensor([[[0.0, 0.3, 0.6, 1.0]] * 3]),
        torch.tensor([[[0.1, 0.2, 0.7, 0.8]] * 3]),
    ),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", CALIBRATORS)
def test_a_calibration_changes_the_prediction(method, when):
    model, x = ensemble(3), rows(7)
    plain = be.predict(model, x).probs
    model.attach(CALIBRATORS[method](when))
    given, wanted = graph_of(model, x), be.predict(model, x)
    assert not np.allclose(wanted.probs, plain, atol=1e-2)
    for name in ("total", "aleatoric", "epistemic"):
        same(given[name], getattr(wanted, name))
    same(given["mean"], wanted.probs)


def test_the_calibration_is_inside(tmp_path):
    model, x = ensemble(3), rows(7)
    model.attach(CALIBRATORS["isotonic"]("after"))
    be.export(model, tmp_path / "m.onnx", rows(2))
    given, wanted = run(tmp_path / "m.onnx", input=x.numpy()), be.predict(model, x)
    same(given["mean"], wanted.probs)
    same(given["epistemic"], wanted.epistemic)


@pytest.mark.parametrize("by", ["epistemic", "confidence"])
def test_a_threshold_answers_in_the_file(by, tmp_path):
    model = ensemble(3)
    prediction = be.predict(model, rows(400))
    threshold = be.threshold_for(prediction, prediction.labels, risk=0.1, by=by)
    scores = uncertainty_score(prediction, by)
    threshold = replace(threshold, value=float(np.median(scores)) + 1e-4)
    found = be.export(model, tmp_path / "m.onnx", rows(2), "mean", threshold=threshold)
    given = run(found.path, input=rows(400).numpy())["answer"]
    assert (given == threshold.accepts(prediction)).all()
    assert 0 < given.mean() < 1
    assert metadata(found.path)["threshold"]["by"] == by


def test_a_threshold_that_answers_all_or_nothing_is_json():
    prediction = be.predict(ensemble(3), rows(400))
    threshold = be.threshold_for(prediction, prediction.labels, risk=0.5)
    said = json.loads(json.dumps(threshold_as_json(threshold)))
    assert said["answers"] == "always"
    assert said["value"] is None


def test_the_shared_layout_holds_the_weights_once(tmp_path):
    net = nn.Sequential(nn.Linear(FEATURES, 200), nn.ReLU(), nn.Linear(200, 200))
    model = be.BatchEnsemble(net, members=8)
    shared = be.export(model, tmp_path / "s.onnx", rows(2), layout="shared")
    merged = be.export(model, tmp_path / "m.onnx", rows(2), layout="merged")
    assert merged.bytes > 4 * shared.bytes
    assert (shared.layout, merged.layout) == ("shared", "merged")
    x = rows(5).numpy()
    same(run(shared.path, input=x)["epistemic"], run(merged.path, input=x)["epistemic"])


def test_int8_is_a_quarter_of_the_bytes_and_nearly_as_uncertain(tmp_path):
    net = nn.Sequential(nn.Linear(FEATURES, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(),
                        nn.Linear(300, 3))  # fmt: skip
    model = be.BatchEnsemble(net, members=3, init="normal", std=0.5).eval()
    path, x = tmp_path / "m.onnx", rows(400)
    before = be.export(model, path, rows(2), "epistemic").bytes
    found = be.export(model, path, rows(2), "epistemic", quantise="int8")
    assert found.bytes <= 0.35 * before
    assert "rounded to int8" in str(found)
    given, wanted = run(path, input=x.numpy())["epistemic"], be.predict(model, x).epistemic
    assert abs(given.mean() / wanted.mean() - 1) < 0.05
    assert np.corrcoef(given, wanted)[0, 1] > 0.95
    assert metadata(path)["members"] == 3
    with pytest.raises(ValueError, match="needs a path that ends in"):
        be.export(model, tmp_path / "m.pt2", rows(2), quantise="int8")


def test_convolutions_are_merged_and_pixels_have_their_own_uncertainty(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                        nn.Conv2d(4, 3, 1))  # fmt: skip
    model, x = be.BatchEnsemble(net, members=3).eval(), torch.randn(5, 1, 6, 6)
    found = be.export(model, tmp_path / "m.onnx", x[:2])
    given, wanted = run(found.path, input=x.numpy()), be.predict(model, x)
    assert found.layout == "merged"
    assert given["epistemic"].shape == (5, 6, 6)
    same(given["epistemic"], wanted.epistemic)


class Tagger(nn.Module):
    """A class for each token, from tokens and a mask, for sequences of any length."""

    def __init__(self, attention: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True) if attention else None
        self.head = nn.Linear(8, 3)

    def forward(self, tokens, padding):
        x = self.table(tokens)
        if self.mix is None:
            x = x + (x * ~padding.unsqueeze(2)).mean(1, keepdim=True)
        else:
            x = x + self.mix(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        return self.head(x).transpose(1, 2)


@pytest.mark.parametrize("attention", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_several_inputs_have_names_and_sequences_any_length(attention, tmp_path):
    model = be.BatchEnsemble(Tagger(attention), members=3).eval()

    def inputs(batch, length):
        tokens = torch.randint(20, (batch, length))
        return {"tokens": tokens, "padding": torch.arange(length).expand(batch, -1) > length - 2}

    axes = {name: {1: "sequence"} for name in ("tokens", "padding")}
    found = be.export(model, tmp_path / "m.onnx", inputs(2, 6), dynamic=axes)
    assert found.inputs == {
        "tokens": "int64 [batch, sequence]",
        "padding": "bool [batch, sequence]",
    }
    for batch, length in ((1, 9), (4, 3)):
        values = inputs(batch, length)
        given = run(found.path, **{name: each.numpy() for name, each in values.items()})
        same(given["total"], be.predict(model, values).total)


class WithLogits(nn.Module):
    """A pretrained network of the usual kind: its outputs have names, one of them ``logits``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.body(x).tanh()
        return {"logits": self.classifier(hidden), "hidden": hidden}


@pytest.mark.parametrize("method", ["multiplicative", "lora"])
def test_an_adapted_network_predicts_from_its_logits(method, tmp_path):
    model = be.adapt(WithLogits(), members=3, method=method, heads=["classifier"]).eval()
    be.export(model, tmp_path / "m.pt2", {"x": rows(2)})
    given, wanted = program(tmp_path / "m.pt2")(rows(7)), be.predict(model, {"x": rows(7)})
    same(given["mean"], wanted.probs)
    same(given["epistemic"], wanted.epistemic)
    assert wanted.epistemic.max() > 1e-3


class CountsRows(nn.Module):
    """A network whose len() becomes a constant in a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.ones(1, 2))
        self.layer = nn.Linear(FEATURES + 2, 3)

    def forward(self, x):
        return self.layer(torch.cat([x, self.start.expand(len(x), -1)], 1))


def test_where_a_trace_would_fix_the_batch_the_code_is_read(tmp_path):
    model = be.BatchEnsemble(CountsRows(), members=3).eval()
    found = be.export(model, tmp_path / "m.onnx", rows(2))
    same(run(found.path, x=rows(9).numpy())["mean"], be.predict(model, rows(9)).probs)
    with pytest.raises(ExportError, match="fixes the batch"):
        be.export(model, tmp_path / "s.onnx", rows(2), layout="shared")
    assert not (tmp_path / "s.onnx").exists()


class ReadsValues(nn.Module):
    """A network whose way depends on its numbers, which no trace follows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 3)

    def forward(self, x):
        return self.layer(x) if x.sum().item() > 0 else self.layer(-x)


def test_what_cannot_be_exported_says_which_ways_were_tried_and_what_stopped_each(tmp_path):
    model = be.BatchEnsemble(ReadsValues(), members=3, run="one_by_one").eval()
    with pytest.raises(ExportError) as caught:
        be.export(model, tmp_path / "m.pt2", rows(2))
    said = str(caught.value)
    assert "Tried one member after the other" in said
    assert "their code instead of a trace" in said
    assert "data-dependent" in said
    assert said.endswith("tells whether the network itself can be traced")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: be.Single(perceptron(3)), id="single"),
        pytest.param(lambda: be.DeepEnsemble(perceptron(3), members=3), id="deep"),
        pytest.param(lambda: be.MIMO(perceptron(3), members=3), id="mimo"),
        pytest.param(
            lambda: be.BatchEnsemble(perceptron(3), members=3, mode="additive", rank=2),
            id="additive",
        ),
        pytest.param(
            lambda: be.BatchEnsemble(perceptron(3), members=3, run="one_by_one"), id="one by one"
        ),
    ],
)
def test_every_method_can_be_exported(model, tmp_path):
    model = model().eval()
    be.export(model, tmp_path / "m.pt2", rows(2))
    same(program(tmp_path / "m.pt2")(rows(7))["mean"], be.predict(model, rows(7)).probs)


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 3)

    def forward(self, x):
        y = self.layer(x)
        return {"scores": y, "size": y.abs().sum(1), "constant": self.layer.bias.sum()}


def test_raw_outputs_are_those_of_the_members(tmp_path):
    model = be.BatchEnsemble(TwoOutputs(), members=3).eval()
    found = be.export(model, tmp_path / "m.onnx", rows(2), "raw")
    given = run(found.path, x=rows(5).numpy())
    assert list(given) == ["scores", "size"]
    same(given["scores"], model(rows(5))["scores"].detach())
    with pytest.raises(ExportError, match="outputs='raw'"):
        be.export(model, tmp_path / "p.onnx", rows(2))


def test_a_difference_is_an_error_and_an_earlier_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "m.pt2"
    path.write_text("before")
    monkeypatch.setattr(
        "batchensemble.exports.writing.expected_values",
        lambda *args: {"mean": checking.expected_values(*args)["mean"] + 0.1},
    )
    with pytest.raises(ExportError, match="another mean than torch at a batch of 1"):
        be.export(ensemble(3), path, rows(2), "mean")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_exporting_changes_nothing_of_the_model(tmp_path):
    model = ensemble(3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    be.export(model, tmp_path / "m.pt2", rows(2))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"outputs": ("mean", "variance")}, "outputs must be one of mean, total"),
        ({"layout": "small"}, "layout must be one of auto, shared, merged"),
        ({"quantise": "int4"}, "quantise must be one of int8"),
        ({"quantiles": (0.5,)}, "quantiles are those of numbers, and the model predicts classes"),
        ({"outputs": "raw", "members": True}, "outputs='raw' gives the members' outputs alone"),
        ({"dynamic": {"y": {0: "z"}}}, "dynamic names 'y', which is no input"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(arguments, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        be.export(ensemble(3), tmp_path / "m.onnx", rows(2), **arguments)


def test_a_path_has_one_of_two_endings(tmp_path):
    with pytest.raises(ValueError, match="path must end in \\.onnx or \\.pt2, got"):
        be.export(ensemble(3), tmp_path / "m.pth", rows(2))


def test_a_threshold_on_other_numbers_is_refused(tmp_path):
    prediction = be.predict(ensemble(3), rows(400))
    threshold = be.threshold_for(prediction, prediction.labels, by=prediction.total, risk=0.1)
    with pytest.raises(ValueError, match="an uncertainty of your own"):
        be.export(ensemble(3), tmp_path / "m.onnx", rows(2), threshold=threshold)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'batchensemble\[export\]'"):
        be.export(ensemble(3), tmp_path / "m.onnx", rows(2))


def test_a_packed_sequence_is_refused(tmp_path):
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(5, 2, FEATURES), torch.tensor([5, 3]))
    model = be.BatchEnsemble(nn.LSTM(FEATURES, 3), members=2, batch_axis=1)
    with pytest.raises(ValueError, match="PackedSequence"):
        be.export(model, tmp_path / "m.onnx", Nested((packed,), 2), "raw")
