"""Calibrated models predict calibrated probabilities, and the original stays as it is."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.decisions.calibration import CALIBRATORS
from batchensemble.metrics import entries

# Networks that were not trained say nothing of the classes.
pytestmark = pytest.mark.filterwarnings("ignore:the calibration data say that the network's")
WAYS = [(method, pooling) for method in CALIBRATORS for pooling in ("before", "after")]
torch.manual_seed(0)
X = torch.randn(600, 4)
Y = (X[:, :3] + torch.randn(600, 3)).argmax(1)


def build(method="batch", members=3):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        network[2].weight.mul_(8)  # surer than it should be
    made = {"single": lambda: be.Single(network), "mimo": lambda: be.MIMO(network, members)}
    kinds = {"batch": be.BatchEnsemble, "deep": be.DeepEnsemble}
    return made.get(method, lambda: kinds[method](network, members))().eval()


@pytest.mark.parametrize("kind", ["single", "batch", "deep", "mimo"])
@pytest.mark.parametrize(("method", "pooling"), WAYS)
def test_every_ensemble_is_calibrated_and_the_original_stays(kind, method, pooling):
    model = build(kind)
    before = copy.deepcopy(model.state_dict())
    calibrated = be.calibrate(model, (X[:300], Y[:300]), method=method, pooling=pooling)
    assert type(calibrated) is type(model)
    assert model.calibrator is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    plain, found = be.predict(model, X), be.predict(calibrated, X)
    assert (
        be.evaluate(calibrated, (X[300:], Y[300:]))["nll"]
        < be.evaluate(model, (X[300:], Y[300:]))["nll"]
    )
    np.testing.assert_allclose(found.probs.sum(1), 1, atol=1e-6)
    with torch.no_grad():
        if pooling == "before":
            assert found.together is None
            scaled = calibrated.calibrator(model(X))
            assert torch.equal(calibrated(X), scaled)
            expected = scaled.double().softmax(2).mean(1).numpy()
        else:
            assert torch.equal(calibrated(X), model(X))
            np.testing.assert_array_equal(found.member_probs, plain.member_probs)
            expected = calibrated.calibrator(torch.from_numpy(plain.probs).log()).softmax(1).numpy()
    np.testing.assert_allclose(found.probs, expected, atol=1e-7)


def test_a_temperature_of_the_mean_changes_no_label_and_keeps_what_the_members_say():
    model = build()
    calibrated = be.calibrate(model, (X, Y), pooling="after")
    plain, found = be.predict(model, X), be.predict(calibrated, X)
    assert calibrated.calibrator.temperature.item() > 1.5
    assert np.array_equal(plain.labels, found.labels)
    np.testing.assert_allclose(found.aleatoric, plain.aleatoric)
    np.testing.assert_allclose(found.epistemic, plain.epistemic, atol=1e-12)
    assert (found.total > plain.total - 1e-12).all()
    assert found.total == pytest.approx(-(found.together * np.log(found.together)).sum(1))


@pytest.mark.parametrize(("method", "pooling"), WAYS)
def test_a_saved_model_comes_back_calibrated(method, pooling, tmp_path):
    calibrated = be.calibrate(build(), (X, Y), method=method, pooling=pooling)
    loaded = be.load(be.save(calibrated, tmp_path))
    assert list(loaded.state_dict()) == list(calibrated.state_dict())
    assert any(name.startswith("calibrator.") for name in loaded.state_dict())
    assert np.array_equal(be.predict(loaded, X).probs, be.predict(calibrated, X).probs)


@pytest.mark.parametrize(("method", "pooling"), WAYS)
def test_a_calibrator_is_exported_and_keeps_its_precision(method, pooling):
    calibrated = be.calibrate(build(), (X, Y), method=method, pooling=pooling)
    exported = torch.export.export(calibrated, (X[:5],)).module()
    torch.testing.assert_close(exported(X[:5]), calibrated(X[:5]))
    shape = (5, 3, 3) if pooling == "before" else (5, 3)
    logits = torch.randn(shape)
    alone = torch.export.export(calibrated.calibrator, (logits,)).module()
    torch.testing.assert_close(alone(logits), calibrated.calibrator(logits))
    cast = copy.deepcopy(calibrated).bfloat16()
    for name, value in cast.calibrator.named_buffers():
        assert torch.equal(value, calibrated.calibrator.get_buffer(name))
    assert cast(X[:5].bfloat16()).dtype == torch.bfloat16
    assert not list(calibrated.calibrator.parameters())


def test_each_member_may_have_its_own_temperature():
    model = build("deep")
    with torch.no_grad():
        model.network[2].weight[1].mul_(4)
    calibrated = be.calibrate(model, (X, Y), per_member=True)
    own = calibrated.calibrator.temperature
    assert own.shape == (3,)
    assert own.argmax() == 1
    with torch.no_grad():
        torch.testing.assert_close(calibrated(X), model(X) / own.view(1, 3, 1))
        some = calibrated.select([2, 1])
        assert some.calibrator.temperature.tolist() == own[[2, 1]].tolist()
        torch.testing.assert_close(some(X), calibrated(X)[:, [2, 1]])
        torch.testing.assert_close(calibrated.member(1)(X), calibrated(X)[:, 1])
    assert len(calibrated.calibrator.temperature) == 3


def test_what_belongs_to_the_mean_is_not_kept_for_some():
    calibrated = be.calibrate(build(), (X, Y), pooling="after")
    with pytest.raises(ValueError, match="fitted to the mean of all members"):
        calibrated.select([0])
    assert calibrated.uncalibrated().select([0]).members == 1


def test_a_model_is_calibrated_anew_from_its_own_logits():
    model = build()
    once = be.calibrate(model, (X, Y), method="vector")
    again = be.calibrate(once, (X, Y))
    direct = be.calibrate(model, (X, Y))
    assert torch.equal(again.calibrator.temperature, direct.calibrator.temperature)
    with torch.no_grad():
        assert torch.equal(again(X), direct(X))
        assert torch.equal(again.uncalibrated()(X), model(X))
    assert not again.uncalibrated()._forward_hooks


def test_a_calibrated_model_is_verified_and_not_trained():
    calibrated = be.calibrate(build(), (X, Y))
    assert calibrated.verify(X[:4]).largest_difference < 1e-5
    with pytest.raises(ValueError, match=r"train model\.uncalibrated\(\), and calibrate it"):
        be.fit(calibrated, (X, Y), epochs=1, progress=False)
    be.fit(calibrated.uncalibrated(), (X, Y), epochs=1, progress=False)


def test_pixels_are_calibrated_where_they_have_a_class():
    torch.manual_seed(2)
    model = be.BatchEnsemble(nn.Conv1d(2, 3, 1), 2)
    x = torch.randn(80, 2, 6)
    y = torch.randint(3, (80, 6))
    y[:, 5] = -100
    loss = be.losses.CrossEntropy(ignore_index=-100)
    be.fit(model, (x[:40], y[:40]), epochs=1, loss=loss, progress=False)
    with torch.no_grad():
        model.network.weight.mul_(20)
    for pooling in ("before", "after"):
        calibrated = be.calibrate(model, (x, y), pooling=pooling)
        worse, better = (be.evaluate(each, (x, y)) for each in (model, calibrated))
        assert better["nll"] < worse["nll"]
    found = be.predict(calibrated, x)
    assert found.together.shape == (80, 3, 6)
    flat, _ = entries(found, y.numpy(), -100)
    assert np.array_equal(flat.together[:5], found.together[0, :, :5].T)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "temprature"}, "method must be one of temperature, .* did you mean"),
        ({"pooling": "during"}, "pooling must be one of before, after, got 'during'"),
        ({"pooling": "after", "per_member": True}, "needs pooling='before'"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_arguments_out_of_range_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.calibrate(build(), (X, Y), **arguments)


@pytest.mark.parametrize(
    ("data", "method", "sentence"),
    [
        ((X[:9], torch.ones(9).long()), "temperature", "more than one class, got 9 .* of class 1"),
        ((X[:9], Y[:9] % 2), "vector", "needs examples of every class, .* none of class 2"),
        ((X[:9], Y[:9] % 2), "platt", "method='platt' needs examples of every class"),
        ((X[:90], Y[:90]), "isotonic", "needs at least 100 examples, got 90"),
        ((X[:9], Y[:9] + 1), "temperature", "labels must be from 0 to 2, got 1 to 3"),
        ((X[:0], Y[:0]), "temperature", "at least one example, got none"),
        ((X[:9, :2], Y[:9]), "temperature", "the network does not take examples"),
    ],
)
def test_data_that_cannot_calibrate_are_refused(data, method, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.calibrate(build(), data, method=method)


def test_outputs_that_are_not_finite_are_refused():
    model = build()
    with torch.no_grad():
        model.network[2].weight[0, 0] = float("nan")
    with pytest.raises(
        ValueError, match="outputs must be finite to be calibrated, got nan in row 1"
    ):
        be.calibrate(model, (X, Y))


def test_models_of_numbers_are_refused():
    model = be.BatchEnsemble(nn.Linear(4, 1), 2)
    be.fit(model, (X, X[:, :1]), loss="mse", epochs=1, progress=False)
    with pytest.raises(ValueError, match="takes logits of classes, trained with the cross-entropy"):
        be.calibrate(model, (X, Y))
    with pytest.raises(ValueError, match="with at least 2 classes, the network gives"):
        be.calibrate(be.BatchEnsemble(nn.Linear(4, 1), 2), (X, Y))


@pytest.mark.parametrize("saved", [False, True])
def test_the_data_of_the_training_are_known_again_and_warned_of(saved, tmp_path):
    model = build()
    be.fit(model, (X[:400], Y[:400], torch.ones(400)), epochs=1, batch_size=50)
    if saved:
        model = be.load(be.save(model, tmp_path))
    with pytest.warns(UserWarning, match="calibrate on examples held out from its training"):
        be.calibrate(model, (X[:400].numpy(), Y[:400].numpy()))
    for others in ((X[400:], Y[400:]), (X[:400] + 1e-6, Y[:400]), (X[:400], Y[:400].roll(1))):
        be.calibrate(model, others)


def test_a_file_of_the_training_is_known_again_streamed_and_not(tmp_path):
    paths = [tmp_path / "training.csv", tmp_path / "others.csv"]
    for path, start in zip(paths, (0, 300), strict=True):
        rows = slice(start, start + 300)
        frame = pd.DataFrame(X[rows].numpy(), columns=list("abcd"))
        frame["kind"] = np.array(["x", "y", "z"])[Y[rows]]
        frame.to_csv(path, index=False)
    for limit in (2**20, 1000):
        model, given = build(), {"target": "kind", "memory_limit": limit}
        be.fit(model, paths[0], epochs=1, **given)
        with pytest.warns(UserWarning, match="the model was trained on these data"):
            be.calibrate(model, paths[0], **given)
        be.calibrate(model, paths[1], **given)


def test_what_a_loader_yields_is_not_known_again():
    loader = DataLoader(TensorDataset(X, Y), batch_size=100)
    model = build()
    be.fit(model, loader, epochs=1)
    assert model.trained_on is None
    be.calibrate(model, loader)


@pytest.mark.parametrize("method", ["temperature", "vector", "platt", "isotonic"])
@pytest.mark.parametrize("pooling", ["before", "after"])
@pytest.mark.parametrize("kind", ["deep", "batch", "mimo", "single"])
def test_a_member_computes_alone_what_the_calibrated_ensemble_computes_for_it(
    kind, pooling, method
):
    model = be.calibrate(build(kind).double(), (X.double(), Y), method=method, pooling=pooling)
    member, x = model.member(-1), X.double()
    rounding = {"rtol": 1e-3, "atol": 1e-3} if method == "isotonic" else {}  # its steps enlarge it
    with torch.no_grad():
        together = model(x)[:, -1]
        torch.testing.assert_close(member(x), together, **rounding)
        if pooling == "before":
            assert not torch.allclose(model.uncalibrated().member(-1)(x), together, atol=1e-2)
        torch.testing.assert_close(copy.deepcopy(member).eval()(x), together, **rounding)
    assert model.verify(x[:5]).largest_difference < 1e-9
    assert type(member) is type(model.uncalibrated().member(-1))
    assert member.state_dict().keys() == model.uncalibrated().member(-1).state_dict().keys()


def test_the_old_method_calibrates_as_before_and_says_its_new_name():
    model = build()
    with pytest.warns(DeprecationWarning, match=r"model.calibrate is now batchensemble.calibrate"):
        old = model.calibrate((X, Y))
    assert old.calibrator.temperature.equal(be.calibrate(model, (X, Y)).calibrator.temperature)
