"""The members chosen are those that the slow loop over ``select`` and ``evaluate`` finds."""

import copy
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be

# Networks that were not trained say nothing of the classes.
pytestmark = pytest.mark.filterwarnings("ignore:the calibration data say that the network's")
torch.manual_seed(0)
X = torch.randn(90, 3)
NOISE = torch.randn(90, 2)
CLASSES = (X + torch.randn(90, 3)).argmax(1)
NUMBERS = X[:, 0] + 0.3 * NOISE[:, 0]
TWO = X[:, :2] + 0.3 * NOISE
LABELS = (TWO > 0).float()


def gaps(targets):
    """Return the targets with some unknown."""
    targets = targets.clone()
    targets[::7] = math.nan
    return targets


# loss, outputs of the network, targets, the scores that there are: the first is the default.
KINDS = {
    "classes": ("cross_entropy", 3, CLASSES, ("nll", "brier", "accuracy")),
    "labels": ("binary_cross_entropy", 2, LABELS, ("nll", "brier", "accuracy")),
    "labels with gaps": ("binary_cross_entropy", 2, gaps(LABELS), ("nll", "brier", "accuracy")),
    "normals": ("gaussian_nll", 2, NUMBERS, ("nll", "crps", "rmse", "mae")),
    "normals with gaps": ("gaussian_nll", 4, gaps(TWO), ("nll", "crps", "rmse", "mae")),
    "points": ("mse", 1, NUMBERS, ("rmse", "mae", "crps")),
    "two points": ("huber", 2, TWO, ("rmse", "mae", "crps")),
    "quantiles": (
        be.losses.Quantile((0.1, 0.5, 0.9)),
        3,
        NUMBERS,
        ("crps", "pinball", "rmse", "mae"),
    ),
}
ALL = [(name, score) for name, kind in KINDS.items() for score in kind[3]]


def build(outputs=3, members=5, kind=be.BatchEnsemble):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, outputs))
    return kind(network, members).eval()


def of_kind(name):
    loss, outputs, targets, _ = KINDS[name]
    model = build(outputs)
    model.loss = be.losses.as_loss(loss)
    return model, (X, targets)


def greedy(model, data, score, count):
    """Return members and scores by the slow, obvious loop."""
    sign = -1 if score == "accuracy" else 1
    chosen, scores = [], []
    for _ in range(count):
        rest = [member for member in range(model.members) if member not in chosen]
        found = [be.evaluate(model.select([*chosen, each]), data)[score] for each in rest]
        best = min(range(len(rest)), key=lambda at: sign * round(found[at], 12))
        chosen.append(rest[best])
        scores.append(found[best])
    return chosen, scores


@pytest.mark.parametrize(("name", "score"), ALL)
def test_members_and_scores_are_those_of_the_loop_over_evaluate(name, score):
    model, data = of_kind(name)
    found = be.choose_members(model, data, count=4, score=score)
    chosen, scores = greedy(model, data, score, 4)
    assert list(found.choice.chosen) == chosen
    np.testing.assert_allclose(found.choice.scores, scores, rtol=1e-6)
    assert found.choice.score_of_all == pytest.approx(be.evaluate(model, data)[score])
    assert (found.choice.score, found.choice.members) == (score, 5)
    assert be.evaluate(found, data)[score] == pytest.approx(scores[-1])


@pytest.mark.parametrize("name", KINDS)
def test_the_default_score_is_the_one_of_the_loss(name):
    model, data = of_kind(name)
    assert be.choose_members(model, data, count=1).choice.score == KINDS[name][3][0]


@pytest.mark.parametrize("kind", [be.BatchEnsemble, be.DeepEnsemble])
def test_the_chosen_predict_as_they_did_and_the_model_stays(kind):
    model = build(kind=kind)
    before = copy.deepcopy(model.state_dict())
    found = be.choose_members(model, (X, CLASSES), count=3)
    assert type(found) is kind
    assert found.members == 3
    torch.testing.assert_close(found(X), model(X)[:, list(found.choice.chosen)])
    assert model.choice is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_first_of_the_chosen_are_those_of_a_smaller_count():
    model = build()
    four = be.choose_members(model, (X, CLASSES), count=4).choice
    two = be.choose_members(model, (X, CLASSES), count=2).choice
    assert four.chosen[:2] == two.chosen
    assert four.scores[:2] == two.scores


def test_of_equal_members_the_lowest_number_is_chosen():
    model = build(members=2)
    twins = be.DeepEnsemble.from_members([model.member(m) for m in (0, 1, 1, 0)])
    found = be.choose_members(twins, (X, CLASSES), count=4).choice
    better = 0 if found.chosen[0] == 0 else 1
    assert found.chosen[0] == better
    assert found.chosen in {(0, 1, 2, 3), (0, 3, 1, 2), (1, 0, 2, 3), (1, 2, 0, 3), (1, 0, 3, 2)}
    one = be.DeepEnsemble.from_members([model.member(0)] * 4)
    assert be.choose_members(one, (X, CLASSES), count=4).choice.chosen == (0, 1, 2, 3)
    assert be.choose_members(one, (X, CLASSES), count=None).choice.chosen == (0,)


def test_without_a_count_as_many_are_chosen_as_have_the_best_score():
    model, data = of_kind("normals")
    found = be.choose_members(model, data, count=None)
    _, scores = greedy(model, data, "nll", 5)
    np.testing.assert_allclose(found.choice.scores, scores)
    assert found.members == len(found.choice.chosen) == int(np.argmin(scores)) + 1
    assert found.choice.scores[-1] == pytest.approx(found.choice.score_of_all)


def test_all_and_one_can_be_chosen():
    model = build()
    found = be.choose_members(model, (X, CLASSES), count=5)
    assert sorted(found.choice.chosen) == list(range(5))
    assert found.choice.scores[-1] == pytest.approx(found.choice.score_of_all)
    single = be.Single(build().member(0))
    assert be.choose_members(single, (X, CLASSES), count=1).choice.chosen == (0,)
    assert be.choose_members(single, (X, CLASSES), count=None).members == 1


def test_the_data_are_passed_through_once(monkeypatch):
    model = build()
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    be.choose_members(model, (X, CLASSES), count=None)
    assert sum(seen) == len(X)


def test_tokens_count_one_by_one_without_the_ignored():
    torch.manual_seed(2)
    model = be.BatchEnsemble(nn.Conv1d(3, 4, 1), members=4).eval()
    model.loss = be.losses.CrossEntropy(ignore_index=-1)
    tokens, classes = torch.randn(20, 3, 6), torch.randint(4, (20, 6))
    classes[:, 4:] = -1
    classes[12:16] = -1  # a batch of nothing
    data = DataLoader(TensorDataset(tokens, classes), batch_size=4)
    for score in ("nll", "brier", "accuracy"):
        chosen, scores = greedy(model, (tokens, classes), score, 3)
        found = be.choose_members(model, data, count=3, score=score).choice
        assert list(found.chosen) == chosen
        np.testing.assert_allclose(found.scores, scores)


def test_targets_in_standard_units_are_scored_in_their_own():
    model = build(2)
    be.fit(model, (X, 100 * NUMBERS), loss="gaussian_nll", standardise_targets=True, epochs=1)
    data = (X[:60], 100 * NUMBERS[:60])
    for score in ("nll", "rmse"):
        found = be.choose_members(model, data, count=2, score=score)
        assert be.evaluate(found, data)[score] == pytest.approx(found.choice.scores[-1])


def test_a_frame_and_words_are_read_as_in_training():
    frame = pd.DataFrame(X.numpy(), columns=["a", "b", "c"])
    frame["kind"] = np.array(["x", "y", "z"])[CLASSES]
    model = build()
    be.fit(model, frame[:60], target="kind", epochs=1)
    found = be.choose_members(model, frame[["kind", "c", "a", "b"]][60:], 2, target="kind")
    plain = be.choose_members(model, (X[60:], CLASSES[60:]), 2)
    assert found.choice == plain.choice
    assert found.class_names == ("x", "y", "z")


class TestCalibrated:
    def test_a_calibrator_before_the_mean_is_kept_and_counts(self):
        model = be.calibrate(build(), (X, CLASSES), per_member=True)
        found = be.choose_members(model, (X, CLASSES), count=3)
        chosen, scores = greedy(model, (X, CLASSES), "nll", 3)
        assert list(found.choice.chosen) == chosen
        np.testing.assert_allclose(found.choice.scores, scores, rtol=1e-6)
        torch.testing.assert_close(found(X), model(X)[:, chosen])

    def test_one_after_the_mean_gets_a_sentence_before_anything_runs(self):
        model = be.calibrate(build(), (X, CLASSES), pooling="after")
        model.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
        with pytest.raises(ValueError, match=r"mean of all members; choose from model.uncal"):
            be.choose_members(model, (X, CLASSES))


class TestSaved:
    def test_the_record_is_saved_and_loaded(self, tmp_path):
        found = be.choose_members(build(), (X, CLASSES), count=3)
        again = be.load(be.save(found, tmp_path / "model"))
        assert again.choice == found.choice
        torch.testing.assert_close(again(X), found(X))

    def test_a_member_that_is_not_finite_leaves_no_score_of_all(self, tmp_path):
        model = diverged(1)
        with pytest.warns(UserWarning, match="not finite: 1"):
            found = be.choose_members(model, (X, CLASSES), count=3)
        again = be.load(be.save(found, tmp_path / "model"))
        assert math.isnan(again.choice.score_of_all)
        assert again.choice.scores == found.choice.scores

    def test_a_selection_of_the_chosen_has_no_record_and_a_copy_has(self):
        found = be.choose_members(build(), (X, CLASSES), count=3)
        assert found.select([0, 1]).choice is None
        assert copy.deepcopy(found).choice == found.choice
        assert found.uncalibrated().choice == found.choice

    def test_it_prints_itself(self):
        found = be.choose_members(build(), (X, CLASSES), count=1).choice
        assert str(found).startswith(f"member {found.chosen[0]} of 5: nll ")


def diverged(*members):
    model = build(kind=be.DeepEnsemble)
    networks = [model.member(m) for m in range(5)]
    for m in members:
        with torch.no_grad():
            networks[m][2].weight.fill_(math.nan)
    return be.DeepEnsemble.from_members(networks).eval()


class TestNotFinite:
    @pytest.mark.parametrize("score", ["nll", "brier", "accuracy"])
    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_members_whose_outputs_are_not_are_never_chosen(self, score):
        model = diverged(0, 3)
        with pytest.warns(UserWarning, match="not finite: 0, 3; they are not chosen"):
            found = be.choose_members(model, (X, CLASSES), count=3, score=score).choice
        assert set(found.chosen) == {1, 2, 4}
        with pytest.warns(UserWarning, match="not finite"):
            assert be.choose_members(model, (X, CLASSES), count=None).members <= 3

    def test_fewer_than_asked_for_get_a_sentence(self):
        with pytest.raises(ValueError, match=r"0, 3; 3 of 5 are left, and count must be at most"):
            be.choose_members(diverged(0, 3), (X, CLASSES), count=4)
        with pytest.raises(ValueError, match=r"which are all; train again"):
            be.choose_members(diverged(*range(5)), (X, CLASSES), count=None)


class TestTrainingData:
    def test_they_are_recognised(self, tmp_path):
        model = build()
        be.fit(model, (X[:60], CLASSES[:60]), epochs=1)
        with pytest.warns(UserWarning, match="trained on these data") as told:
            be.choose_members(model, (X[:60], CLASSES[:60]))
        assert told[0].filename == __file__
        loaded = be.load(be.save(model, tmp_path / "model"))
        with pytest.warns(UserWarning, match="trained on these data"):
            be.choose_members(loaded, (X[:60], CLASSES[:60]))

    def test_others_are_not(self):
        model = build()
        be.fit(model, (X[:60], CLASSES[:60]), epochs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            be.choose_members(model, (X[60:], CLASSES[60:]))


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("count", "error", "said"),
        [
            (0, ValueError, "count must be at least 1, got 0"),
            (6, ValueError, "count must be at most 5, the number of members, got 6"),
            (2.0, TypeError, "count must be a whole number of at least 1, got 2.0"),
            (True, TypeError, "count must be a whole number of at least 1, got True"),
        ],
    )
    def test_counts(self, count, error, said):
        with pytest.raises(error, match=said):
            be.choose_members(build(), (X, CLASSES), count=count)

    def test_a_score_of_another_kind_of_prediction(self):
        with pytest.raises(ValueError, match=r"score must be one of nll, brier, accuracy, got 'cr"):
            be.choose_members(build(), (X, CLASSES), score="crps")
        model, data = of_kind("points")
        with pytest.raises(ValueError, match=r"score must be one of rmse, mae, crps, got 'nll'"):
            be.choose_members(model, data, score="nll")

    def test_a_plain_network(self):
        with pytest.raises(TypeError, match="model must be an ensemble"):
            be.choose_members(nn.Linear(3, 3), (X, CLASSES))

    def test_members_that_cannot_be_separated(self):
        network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
        with pytest.raises(ValueError, match="members of MIMO share one network"):
            be.choose_members(be.MIMO(network, 3), (X, CLASSES), count=2)

    @pytest.mark.parametrize("data", [(X[:0], CLASSES[:0]), DataLoader([])])
    def test_no_data(self, data):
        with pytest.raises(ValueError, match=r"at least one|empty|no example|not have any"):
            be.choose_members(build(), data)

    def test_targets_none_of_which_is_known(self):
        model, _ = of_kind("normals")
        with pytest.raises(ValueError, match=r"at least one|known"):
            be.choose_members(model, (X, torch.full((90,), math.nan)))

    def test_inputs_and_classes_that_do_not_fit(self):
        with pytest.raises(ValueError, match="does not take examples"):
            be.choose_members(build(), (X[:, :2], CLASSES))
        with pytest.raises(ValueError, match="labels must be from 0 to 2, got 0 to 3"):
            be.choose_members(build(), (X, CLASSES + (CLASSES == 2)))
