"""A comparison runs what was asked for, repeatably, and keeps what it has when stopped."""

import contextlib
import json
import math
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.comparison import compare as comparing
from batchensemble.comparison.compare import Settings, build_ensemble, compare
from batchensemble.comparison.planes import make_plane
from batchensemble.data.datasets import Data
from batchensemble.ensembles import METHODS
from batchensemble.metrics import score
from batchensemble.predictions.predict import predict


def small(features=3, classes=3):
    rng = np.random.default_rng(0)

    def part(examples):
        x = rng.normal(size=(examples, features)).astype(np.float32)
        return x, np.arange(examples) % classes

    names = tuple(f"f{number}" for number in range(features))
    return Data("small", part(60), part(15), names, tuple("abcdef"[:classes]), True)


def quick(**options):
    return Settings(**{"members": 2, "epochs": 2, "batch_size": 16, "hidden": (8,), **options})


COMPARED = Settings().methods  # by default


@pytest.fixture(scope="module")
def finished():
    return compare(small(), quick(seeds=2))


def test_every_method_runs_from_every_seed(finished):
    order = [(run.method, run.seed) for run in finished.runs]
    assert order == [(method, seed) for seed in (0, 1) for method in COMPARED]
    assert finished.methods == [*COMPARED]
    assert [run.seed for run in finished.of("batch")] == [0, 1]
    assert not finished.interrupted
    assert finished.failures == []


def test_a_run_holds_its_history_prediction_scores_and_cost(finished):
    y = finished.data.held_out[1]
    for run in finished.runs:
        members = 1 if run.method == "single" else 2
        assert run.prediction.member_probs.shape == (15, members, 3)
        assert dict(run.scores) == dict(score(run.prediction, y))
        assert len(run.history.losses) == len(run.history.validation_nll) == 2
        assert run.history.validation_nll[-1] == pytest.approx(run.scores["nll"], rel=1e-5)
        assert run.cost.forward_calls == run.history.total_forward_calls == 2 * 4
        assert len(run.plane) == len(finished.plane.points)
    assert len({run.cost.parameters for run in finished.runs}) == len(COMPARED)


def test_seeds_give_other_networks(finished):
    for method in COMPARED:
        one, two = finished.of(method)
        assert one.scores["nll"] != two.scores["nll"]


def test_a_run_is_what_building_fitting_and_predicting_give(finished):
    data, settings = finished.data, finished.settings
    for run in finished.of("batch"):
        model = build_ensemble("batch", settings, data, run.seed)
        be.fit(model, data.train, epochs=2, batch_size=16, seed=run.seed)
        prediction = predict(model, data.held_out[0])
        np.testing.assert_array_equal(prediction.member_probs, run.prediction.member_probs)


def test_the_same_settings_give_the_same_scores_bit_by_bit(finished):
    torch.manual_seed(99)
    again = compare(small(), quick(seeds=2))
    assert [dict(run.scores) for run in again.runs] == [dict(run.scores) for run in finished.runs]


def test_a_method_does_not_depend_on_the_others_beside_it(finished):
    [alone] = compare(small(), quick(methods=("mimo",))).runs
    assert dict(alone.scores) == dict(finished.of("mimo")[0].scores)


def test_the_callers_random_state_stays():
    before = torch.get_rng_state()
    compare(small(), quick(methods=("batch",), epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_dictionary_is_json_and_holds_what_was_done(finished):
    described = json.loads(json.dumps(finished.to_dict(), allow_nan=False))
    assert described["settings"]["hidden"] == [8]
    assert described["settings"]["members"] == 2
    assert described["data"] == {
        "name": "small",
        "task": "classification",
        "training_examples": 60,
        "held_out_examples": 15,
        "feature_names": ["f0", "f1", "f2"],
        "class_names": ["a", "b", "c"],
        "dialect": dict.fromkeys(("separator", "decimal", "encoding", "gaps")),
        "target": None,
        "standardised": True,
        "choices": {"drop": [], "keep": [], "categorical": [], "numeric": []},
    }
    assert described["versions"]["torch"] == torch.__version__
    assert [run["method"] for run in described["runs"]] == [*COMPARED, *COMPARED]
    for run, made in zip(described["runs"], finished.runs, strict=True):
        assert run["scores"] == dict(made.scores)
        assert run["cost"]["parameters"] == made.cost.parameters
        assert run["history"]["losses"] == made.history.losses


def failing_at(monkeypatch, number, error):
    """Let the training ``number``, from 1, raise ``error``."""
    fit, calls = comparing.fit, []

    def fit_or_fail(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            raise error
        return fit(*arguments, **options)

    monkeypatch.setattr(comparing, "fit", fit_or_fail)


def test_ctrl_c_keeps_the_finished_runs(monkeypatch):
    failing_at(monkeypatch, 2, KeyboardInterrupt())
    told = []
    comparison = compare(small(), quick(), on_run=told.append)
    assert comparison.interrupted
    assert comparison.methods == ["single"]
    assert told == comparison.runs
    assert comparison.to_dict()["interrupted"] is True


def test_a_training_that_diverges_does_not_stop_the_others(monkeypatch):
    failing_at(monkeypatch, 2, FloatingPointError("training diverged"))
    comparison = compare(small(), quick())
    assert comparison.methods == ["single", "batch", "mimo"]
    assert comparison.failures == ["deep, seed 0: training diverged"]
    assert not comparison.interrupted


def test_other_errors_are_not_swallowed(monkeypatch):
    failing_at(monkeypatch, 2, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        compare(small(), quick())


@dataclass(frozen=True)
class Deadly(Data):
    """Kills the first process that asks for its features, other than the one that made it."""

    folder: Path = Path()
    parent: int = 0

    @property
    def features(self):
        if os.getpid() != self.parent:
            with contextlib.suppress(FileExistsError):
                (self.folder / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().features


@pytest.fixture(scope="module")
def one_killed(tmp_path_factory):
    """Return a comparison in two processes, the first of which was killed, and its folder."""
    folder = tmp_path_factory.mktemp("killed")
    data = Deadly(**vars(small()), folder=folder, parent=os.getpid())
    told = []
    comparison = compare(data, quick(seeds=2), jobs=2, folder=folder / "runs", on_run=told.append)
    assert {id(run) for run in told} == {id(run) for run in comparison.runs}
    return comparison, folder / "runs"


def names(runs):
    return [f"{run.method}-seed-{run.seed}" for run in runs]


def assert_the_same(runs, others):
    for run, other in zip(runs, others, strict=True):
        assert (run.method, run.seed) == (other.method, other.seed)
        np.testing.assert_allclose(
            run.prediction.member_probs, other.prediction.member_probs, atol=1e-6
        )
        np.testing.assert_allclose(run.plane.member_probs, other.plane.member_probs, atol=1e-6)
        assert run.history.losses == pytest.approx(other.history.losses, abs=1e-6)
        for name, number in run.scores.items():
            assert number == pytest.approx(other.scores[name], abs=1e-6)
        assert run.cost.parameters == other.cost.parameters


def test_a_killed_process_is_reported_and_the_others_go_on_with_the_same_numbers(
    one_killed, finished
):
    comparison, folder = one_killed
    [failure] = comparison.failures
    assert "its process ended before the training did (SIGKILL(-9))" in failure
    missing = failure.split(":")[0].replace(", seed ", "-seed-")
    assert len(comparison.runs) == 7
    assert missing not in names(comparison.runs)
    # In the order asked for, though they ended in another.
    assert_the_same(comparison.runs, [r for r in finished.runs if names([r]) != [missing]])
    assert {path.stem for path in folder.iterdir()} == set(names(comparison.runs))


def test_the_same_again_trains_only_what_is_missing(one_killed, finished, monkeypatch):
    before, folder = one_killed
    fit, trained = comparing.fit, []

    def counted(*arguments, label, **options):
        trained.append(label)
        return fit(*arguments, label=label, **options)

    monkeypatch.setattr(comparing, "fit", counted)
    again = compare(small(), quick(seeds=2), folder=folder)
    assert trained == [before.failures[0].split(":")[0]]
    assert again.read == 7
    assert again.failures == []
    assert_the_same(again.runs, finished.runs)
    trained_now = [name for name in names(again.runs) if name not in names(before.runs)]
    assert [name.replace("-seed-", ", seed ") for name in trained_now] == trained
    old = {name: run.to_dict() for name, run in zip(names(before.runs), before.runs, strict=True)}
    for name, run in zip(names(again.runs), again.runs, strict=True):
        assert run.to_dict() == old.get(name, run.to_dict())


def test_more_seeds_or_methods_use_what_is_there_and_other_settings_do_not(tmp_path):
    def read(data=None, **options):
        asked = quick(**{"methods": ("single",), "epochs": 1, **options})
        return compare(data or small(), asked, folder=tmp_path).read

    assert read() == 0
    assert read() == 1
    assert read(seeds=2) == 1
    assert read(seeds=2, methods=("batch", "single")) == 2
    assert read(epochs=2) == 0
    assert read(epochs=2) == 1
    assert read(epochs=2, hidden=(4,)) == 0
    other = replace(small(), held_out=(small().held_out[0] + 1, small().held_out[1]))
    assert read(other, epochs=2, hidden=(4,)) == 0


def test_a_run_that_fails_is_tried_again(tmp_path, monkeypatch):
    failing_at(monkeypatch, 1, FloatingPointError("training diverged"))
    asked = quick(methods=("single",))
    assert compare(small(), asked, folder=tmp_path).failures
    again = compare(small(), asked, folder=tmp_path)
    assert (again.failures, again.read, names(again.runs)) == ([], 0, ["single-seed-0"])


def test_a_run_that_cannot_be_kept_is_in_the_comparison_all_the_same(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    comparison = compare(small(), quick(methods=("single",)), folder=tmp_path)
    assert names(comparison.runs) == ["single-seed-0"]
    assert "No space left on device" in comparison.failures[0]


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_get_the_same_network(method):
    model = build_ensemble(method, quick(members=5, hidden=(7, 6)), small(), seed=0)
    assert isinstance(model, METHODS[method].kind)
    assert model.members == (1 if method == "single" else 5)
    assert model.parameters_of_one == (3 * 7 + 7) + (7 * 6 + 6) + (6 * 3 + 3)
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 2


def test_no_hidden_layer_is_a_linear_model():
    assert [run.method for run in compare(small(), quick(hidden=(), epochs=1)).runs] == [*COMPARED]


def test_two_features_are_the_plane_themselves():
    data = small(features=2)
    plane = make_plane(data)
    assert not plane.projected
    assert plane.axes == ("f0", "f1")
    np.testing.assert_array_equal(plane.held_out, data.held_out[0])
    assert plane.points.shape == (len(plane.x) * len(plane.y), 2)
    for axis, ticks in enumerate((plane.x, plane.y)):
        shown = data.held_out[0][:, axis]
        margin = 0.15 * (shown.max() - shown.min())
        assert ticks[[0, -1]] == pytest.approx([shown.min() - margin, shown.max() + margin])


def test_points_of_the_plane_go_along_x_first():
    plane = make_plane(small(features=2))
    grid = plane.points.reshape(len(plane.y), len(plane.x), 2)
    np.testing.assert_allclose(grid[3, :, 0], plane.x, rtol=1e-6)
    np.testing.assert_allclose(grid[:, 3, 1], plane.y, rtol=1e-6)


def test_more_features_are_projected_onto_two_components_and_back():
    data = small(features=4)
    plane = make_plane(data)
    assert plane.projected
    assert plane.points.shape == (len(plane.x) * len(plane.y), 4)
    assert plane.axes[0].startswith("principal component 1 (")
    # Points of the grid lie in a plane of the features, as the grid is laid out in x and y.
    assert np.linalg.matrix_rank(plane.points - plane.points[0], tol=1e-3) == 2
    step = np.linalg.norm(plane.points[1] - plane.points[0])
    assert step == pytest.approx(plane.x[1] - plane.x[0], rel=1e-3)


def test_one_feature_has_no_plane():
    comparison = compare(small(features=1), quick(methods=("deep",), epochs=1))
    assert comparison.plane is None
    assert comparison.runs[0].plane is None


def test_the_settings_by_default_are_the_notebooks():
    settings = Settings()
    assert settings.methods == ("single", "deep", "batch", "mimo")
    assert (settings.members, settings.epochs, settings.batch_size) == (3, 10, 128)
    assert (settings.lr, settings.hidden) == (1e-3, (128, 128))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"methods": ()}, ValueError, "methods must name at least one of single, deep"),
        ({"methods": ("depp",)}, ValueError, "did you mean 'deep'"),
        ({"methods": ("deep", "deep")}, ValueError, "methods must differ, got deep, deep"),
        *[
            ({name: value}, error, f"{name} must be")
            for name in ("members", "epochs", "batch_size", "seeds")
            for value, error in [
                (0, ValueError),
                (-1, ValueError),
                (1.5, TypeError),
                ("3", TypeError),
                (True, TypeError),
                (None, TypeError),
            ]
        ],
        ({"lr": 0.0}, ValueError, "lr must be a finite number above 0"),
        ({"lr": math.nan}, ValueError, "lr must be a finite number above 0"),
        ({"lr": "fast"}, TypeError, "lr must be a number above 0"),
        ({"cooldown": 2.0}, ValueError, "cooldown must be a number from 0 to 1"),
        ({"cooldown": None}, TypeError, "cooldown must be a number from 0 to 1"),
        ({"hidden": (8, 0)}, ValueError, "hidden must be at least 1, got 0"),
        ({"hidden": ("8",)}, TypeError, "hidden must be a whole number"),
        ({"hidden": 8}, TypeError, "hidden must be the widths of the hidden layers"),
        ({"methods": "deep"}, ValueError, "methods must be"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(options, error, sentence):
    with pytest.raises(error, match=sentence):
        Settings(**options)
