"""A method is one record: comparisons, reports, settings and saved models know it from there."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.cli.workflows.settings import method_defaults, resolve
from batchensemble.comparison.compare import compare
from batchensemble.comparison.results import Settings
from batchensemble.data.datasets import load_dataset
from batchensemble.ensembles import METHODS, BatchEnsemble
from batchensemble.ensembles.methods import (
    Method,
    baseline_among,
    independent_among,
    method_of,
)
from batchensemble.report import write_report


class Lopsided(BatchEnsemble):
    """A method of the test's own."""


@pytest.fixture
def lopsided(monkeypatch):
    """One record, as a file of methods holds it."""
    style = replace(METHODS["batch"].style, symbol="◧", on_light="#123456")
    method = Method("lopsided", Lopsided, "Lopsided ensemble", "the lopsided ensemble", style)
    monkeypatch.setitem(METHODS, "lopsided", method)
    return method


def network():
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))


def test_each_builds_its_own_kind_with_the_members_that_it_can_have():
    for name, method in METHODS.items():
        model = method.build(network(), 3)
        assert type(model) is method.kind
        assert method_of(model) is method
        assert method.name == name
        assert model.members == (method.fixed_members or 3)


def test_a_class_of_the_users_own_is_no_method():
    assert method_of(Lopsided(network(), 2)) is None


def test_the_baseline_and_the_independent_members_are_found_by_what_they_are():
    names = ["mimo", "batch", "deep", "single"]
    assert (baseline_among(names), independent_among(names)) == ("single", "deep")
    assert (baseline_among(["batch"]), independent_among(["batch"])) == (None, None)


def test_a_new_record_is_compared_and_stands_on_the_page(lopsided, tmp_path, monkeypatch):
    monkeypatch.setattr("batchensemble.report.page.draw_all", lambda comparison: {})
    settings = Settings(methods=("single", "lopsided"), members=2, epochs=1, hidden=(4,))
    page = write_report(compare(load_dataset("breast_cancer"), settings), tmp_path).read_text()
    assert "Lopsided ensemble" in page
    assert '<span class="mark lopsided" aria-hidden="true">◧</span>' in page
    assert ".lopsided { color: #123456; }" in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == ["single", "lopsided"]


def test_a_new_record_is_saved_and_has_settings(lopsided, tmp_path):
    torch.manual_seed(0)
    model, x = lopsided.build(network(), 2, bias="shared").eval(), torch.randn(5, 2)
    loaded = be.load(be.save(model, tmp_path))
    assert type(loaded) is Lopsided
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    assert "init" in method_defaults("lopsided")
    assert resolve({"method": "lopsided", "members": 5})["members"] == 5
