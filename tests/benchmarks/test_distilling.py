"""What distilling keeps: its parts, and the share of a gain."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.distilling import runs as script


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_rows_from_outside_are_in_no_training(name):
    (X, y), (held_X, held_y), outside = script.split(name, seed=3)
    assert len(X) == len(y) == script.SOURCES[name].rows
    assert len(held_X) == len(held_y)
    if name == "digits":
        assert set(y) | set(held_y) == set(range(7))
    else:  # column 2 is the body mass index
        assert outside[:, 2].min() > max(X[:, 2].max(), held_X[:, 2].max())


def test_each_way_has_its_scores_and_costs(monkeypatch):
    source = replace(script.SOURCES["diabetes"], members=2, width=4, epochs=1)
    monkeypatch.setitem(script.SOURCES, "diabetes", source)

    def quick(model, network, X, **options):
        found = script.be.Single(model.member(0))
        found.loss = model.loss
        return found

    monkeypatch.setattr(script.be, "distil", quick, raising=False)
    run = script.measure("diabetes", 0)
    assert list(run) == list(script.WAYS)
    costs = {"training", "parameters", "prediction"}
    assert all(set(each) == {*script.SCORES, *costs} for each in run.values())
    assert run["one"]["epistemic"] == 0.5
    assert len(script.kept_lines({"diabetes": [run]})) == 3


def test_the_share_is_that_of_the_mean_gains():
    runs = [
        {"one": {"nll": 1.0}, "ensemble": {"nll": 0.8 - each}, "distilled": {"nll": 0.9}}
        for each in np.linspace(-0.1, 0.1, 5)
    ]
    told = script.share_kept(runs, "distilled", "nll")
    assert told.startswith("50% [")
