"""A model card says what is known and measured, nothing else, and no name breaks out of it."""

import re

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import batchensemble as be
from batchensemble.predictions import Normals, Prediction
from batchensemble.report.card.evaluated import measured
from batchensemble.report.card.limits import ONE_MEMBER, limits

HOSTILE = "a | b\n---\n# <script>alert(1)</script> `x` [y](http://z) **c**: {{ d }} \x1b[31m\"'\\"
KINDS = {"classes": "cross_entropy", "numbers": "gaussian_nll", "labels": "binary_cross_entropy"}


@pytest.fixture(autouse=True)
def _as_users_run_it(as_users_run_it):
    pass


def network(outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, outputs))


def moons(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 2)).astype(np.float32)
    return X, (X[:, 0] + rng.normal(0, 0.5, rows) > 0).astype(np.int64)


@pytest.fixture(scope="module")
def trained():
    model = be.BatchEnsemble(network(), members=4)
    history = be.fit(model, moons(), epochs=4, lr=0.03, seed=3, progress=False)
    model.class_names = ("no", "yes")
    return model.eval(), history


def parts(card):
    """Return the front matter of a card as YAML reads it, and the text below."""
    _, head, body = card.split("---\n", 2)
    return yaml.safe_load(head), body


def table_rows(card, title):
    """Return the rows of the table whose header begins with a title, as cells."""
    lines = card[card.index(f"| {title} |") :].split("\n\n")[0].splitlines()[2:]
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in x.split("|")][1:] for x in lines)}


def test_the_numbers_of_a_card_are_those_of_evaluate(trained):
    model, history = trained
    data = moons(90, seed=1)
    card = be.model_card(model, data, history=history, data="moons, new", license="mit")
    scores, rows = be.evaluate(model, data), table_rows(card, "Score")
    for name, title in (("accuracy", "Accuracy ↑"), ("nll", "NLL ↓ (nats)"), ("ece", "ECE ↓")):
        value, interval, *_ = rows[title]
        assert value == f"{scores[name]:.4f}"
        low, high = map(float, interval.split(" to "))
        assert low < scores[name] < high
    assert rows["Accuracy ↑"][2] == f"{scores['constant_accuracy']:.4f}"
    assert "On 90 examples of moons, new;" in card
    assert f"the ECE is {scores['ece']:.4f}" in card
    recall = table_rows(card, "Class")["yes"][1]
    assert recall == f"{scores.confusion.recall[1]:.1%}"
    assert table_rows(card, "Setting")["seed"][0] == "3"
    assert "Trained for 4 epochs" in card


def test_the_hub_reads_the_front_matter(trained):
    model, _ = trained
    data = moons(90, seed=1)
    card = be.model_card(
        model, data, title="Moons", data="moons", license="mit", task="tabular-classification"
    )
    found = huggingface_hub.ModelCard(card).data
    assert (found.library_name, found.license) == ("batchensemble", "mit")
    assert found.pipeline_tag == "tabular-classification"
    assert "uncertainty-quantification" in found.tags
    results = {each.metric_type: each for each in found.eval_results}
    scores = be.evaluate(model, data)
    for name in ("accuracy", "nll", "brier", "ece", "auc"):
        assert results[name].metric_value == pytest.approx(scores[name], rel=1e-5)
        assert results[name].dataset_name == "moons"


def test_what_is_not_known_is_left_out():
    model = be.BatchEnsemble(network(), members=4)
    head, body = parts(be.model_card(model))
    assert set(head) == {"library_name", "tags"}
    for absent in ("Scores", "Data", "Calibration", "Setting", "Predicts", "Loss", "None", "nan"):
        assert f"## {absent}" not in body
        assert f"| {absent} |" not in body
    assert "This card has no scores" in body
    assert re.findall(r"^## (.*)$", body, re.MULTILINE) == [
        "Use",
        "When not to trust it",
        "How it was made",
    ]


def test_scores_without_predictions_have_no_intervals_and_no_place_in_the_index(trained):
    model, _ = trained
    scores = be.evaluate(model, moons(90, seed=1))
    head, body = parts(be.model_card(model, scores))
    assert "model-index" not in head
    assert "accuracy" in head["metrics"]
    assert "| Score | Value | Constant |" in body
    assert "Interval" not in body
    assert "## Calibration" not in body


def test_the_lines_of_a_card_load_its_model(trained, tmp_path):
    model, _ = trained
    folder = model.save_pretrained(tmp_path)
    text = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len(code.splitlines()) == 3
    names = {"X": moons()[0]}
    exec(code.replace("path/to/this/folder", str(folder)), names)
    assert np.array_equal(names["prediction"].probs, be.predict(model, names["X"]).probs)


def test_no_name_breaks_out_of_a_card(trained):
    model, _ = trained
    names = model.class_names
    model.class_names, model.feature_names = (HOSTILE, "yes"), (HOSTILE, "x" * 5000)
    try:
        card = be.model_card(
            model,
            moons(90, seed=1),
            title=HOSTILE,
            data=HOSTILE,
            license=HOSTILE,
            task=HOSTILE,
            base_model=HOSTILE,
            settings={HOSTILE: HOSTILE},
            notes=[HOSTILE],
            name=HOSTILE,
        )
    finally:
        model.class_names, model.feature_names = names, None
    head, body = parts(card)
    assert set(head) == {
        "library_name", "license", "pipeline_tag", "base_model", "tags", "metrics", "model-index"
    }  # fmt: skip
    flat = " ".join(HOSTILE.replace("\x1b", " ").split())
    [index] = head["model-index"]
    assert index["name"] == index["results"][0]["dataset"]["name"] == head["license"] == flat
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    for breaking in ("<script", "<strong>", "<a ", "\x1b"):
        assert breaking not in page
    assert "x" * 200 not in page
    assert page.count("<h1>") == 1
    for table in re.findall(r"<table>(.*?)</table>", page, re.DOTALL):
        widths = {len(re.findall("<t[dh][ >]", row)) for row in table.split("</tr>")[:-1]}
        assert len(widths) == 1
    assert "alert(1)" in page  # shown as text


def test_scores_of_the_training_data_are_called_so(trained):
    model, _ = trained
    sentence = "of the data that the model was trained on"
    assert sentence in be.model_card(model, moons())
    assert sentence not in be.model_card(model, moons(90, seed=1))


def test_a_share_of_all_has_an_interval_of_some_width():
    sure = Prediction(np.tile([[[0.9, 0.1]]], (60, 2, 1)))
    found = measured(be.Single(network()), sure, np.zeros(60, int))
    assert found.scores["accuracy"] == 1
    assert found.intervals["accuracy"] == pytest.approx((0.9404, 1.0), abs=1e-4)


def test_members_that_are_one_network_are_called_so():
    alike = Prediction(np.tile([[[0.6, 0.4]]], (900, 4, 1)))
    model = be.BatchEnsemble(network(), members=4)
    labels = np.arange(900) % 2
    found = measured(model, alike, labels)
    assert found.one_model.startswith("two members disagree on 0 of the examples")
    assert limits(model, found, None, decided=True)[1].endswith(found.one_model)
    one = measured(be.Single(network()), Prediction(alike.member_probs[:, :1]), labels)
    assert one.one_model == ""
    assert ONE_MEMBER in limits(be.Single(network()), one, None, decided=True)


def test_numbers_have_errors_in_the_unit_of_the_target_and_coverage():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(200, 2))
    narrow = Normals(mean, np.full((200, 2), 0.1))
    model = be.BatchEnsemble(network(), members=2)
    found = measured(model, narrow, rng.normal(size=200))
    assert found.calibration.startswith("Too narrow intervals detected: 90% intervals contain")
    assert {"rmse", "mae", "nll", "crps", "coverage", "r2"} <= set(found.intervals)
    for name, (low, high) in found.intervals.items():
        assert low < found.scores[name] < high


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_output_has_a_card(kind):
    X, y = moons(60)
    model = be.DeepEnsemble(network(), members=2)
    y = {"classes": y, "numbers": X[:, 0], "labels": np.stack([y, 1 - y], 1)}[kind]
    be.fit(model, (X, y), epochs=1, loss=KINDS[kind], progress=False)
    head, body = parts(be.model_card(model, (X, y), data="d"))
    task = {"numbers": "regression"}.get(kind, "classification")
    assert head["model-index"][0]["results"][0]["task"]["type"] == task
    assert ("nan" in body, "None" in body) == (False, False)


def test_tokens_have_scores_without_intervals():
    model = be.Single(nn.Conv1d(2, 3, 1))
    torch.manual_seed(0)
    X, y = torch.randn(20, 2, 5), torch.randint(3, (20, 5))
    card = be.model_card(model, (X, y))
    assert f"| Accuracy ↑ | {be.evaluate(model, (X, y))['accuracy']:.4f} |" in card
    assert "Interval" not in card


def test_a_threshold_says_when_it_may_answer(trained):
    model, _ = trained
    X, y = moons(400, seed=2)
    threshold = be.threshold_for(be.predict(model, X), y, risk=0.4)
    card = be.model_card(model, threshold=threshold)
    assert "## When it may answer\n\n- Error rate at most 40.00% with 95% confidence" in card
    assert "It stores no threshold" not in card


def test_an_adapter_names_the_network_it_was_adapted_from():
    net = network()
    net.config = type("Config", (), {"_name_or_path": "google/bert_uncased"})()
    model = be.adapt(net, members=2, heads=["2"])
    head, body = parts(be.model_card(model, name="ann/adapter"))
    assert head["base_model"] == "google/bert_uncased"
    assert "# network: the pretrained network, with its weights" in body
    assert "be.from_pretrained('ann/adapter', network)" in body
    assert re.search(r"Parameters \| [\d,]+, .* times those of one network; \d+ of them tr", body)


def test_a_base_of_transformers_is_loaded_by_its_class():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    config = BertConfig(intermediate_size=16, num_labels=3, name_or_path="ann/bert", **sizes)
    model = be.adapt(BertForSequenceClassification(config), members=2, heads=["classifier"])
    card = be.model_card(model, name="ann/adapter")
    assert (
        "from transformers import BertForSequenceClassification\n"
        "network = BertForSequenceClassification.from_pretrained('ann/bert', num_labels=3)\n"
        "model = be.from_pretrained('ann/adapter', network)\n"
    ) in card
    assert "network = " not in be.model_card(be.Single(model.member(0)))


def test_a_card_is_of_ensembles():
    with pytest.raises(TypeError, match="ensemble"):
        be.model_card(network())
