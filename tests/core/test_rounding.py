"""Targets, features and weights are not rounded away: they are exact, or refused in a sentence."""

import copy

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import batchensemble as be
from batchensemble.cli.workflows.evaluate import evaluate_folder
from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.predict import predict_file
from batchensemble.cli.workflows.settings import resolve
from batchensemble.cli.workflows.train import train_model
from batchensemble.ensembles.saving import load
from batchensemble.losses import MSE, GaussianNLL, Standardised, standardised
from batchensemble.metrics import score
from batchensemble.metrics.by_example import contributions
from batchensemble.predictions import Points
from batchensemble.training.checkpoints.store import CheckpointError

N = 600
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2))
Y = 1e7 + 0.25 * X[:, 0] + 0.1 * X[:, 1]  # float32 knows whole numbers there, and no others
TABLE = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": Y})
SMALL = 4000  # bytes: files are streamed


def network(outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, outputs))


def trained(data, loss="gaussian_nll", *, outputs=2, **options):
    model = be.BatchEnsemble(network(outputs), members=2)
    settings = {"epochs": 2, "lr": 1e-2, "loss": loss, "standardise_targets": True}
    be.fit(model, data, **{**settings, **options})
    return model


def written(folder, kind):
    path = folder / f"table.{kind}"
    if kind == "csv":
        TABLE.to_csv(path, index=False)
    elif kind == "parquet":
        TABLE.to_parquet(path, row_group_size=100)
    else:
        TABLE.to_feather(path)
    return path


def loader(*parts):
    return DataLoader(TensorDataset(*map(torch.as_tensor, parts)), batch_size=64)


def own_scores(model, X=X, y=Y):
    """Score predictions against the numbers themselves, by hand."""
    said = be.predict(model, X.astype(np.float32))
    low, high = said.interval(0.9)
    rmse = np.sqrt(np.mean((said.mean - y) ** 2))
    return float(rmse), float(np.mean((low <= y) & (y <= high)))


def check(model, scores):
    rmse, coverage = own_scores(model)
    assert scores["rmse"] == pytest.approx(rmse, rel=1e-9)
    assert scores["coverage"] == coverage
    assert model.loss.mean == pytest.approx([Y.mean()], rel=1e-15)
    assert model.loss.deviation == pytest.approx([Y.std()], rel=1e-6)


F32 = X.astype(np.float32)
IN_MEMORY = {
    "arrays": lambda: (F32, Y),
    "tensors": lambda: (torch.from_numpy(F32), torch.from_numpy(Y)),
    "column": lambda: (F32, Y[:, None]),
    "pandas": lambda: (F32, TABLE["y"]),
    "polars": lambda: (F32, pl.from_pandas(TABLE)["y"]),
    "arrow": lambda: (F32, pa.Table.from_pandas(TABLE[["y"]])),
    "loader": lambda: loader(F32, Y[:, None]),
    "dataset": lambda: TensorDataset(torch.from_numpy(F32), torch.from_numpy(Y)),
}


@pytest.mark.parametrize("form", IN_MEMORY)
def test_a_small_spread_around_a_large_number_is_learnt_and_scored(form):
    data = IN_MEMORY[form]()
    model = trained(data)
    check(model, be.evaluate(model, data))


@pytest.mark.parametrize("limit", [SMALL, 1 << 20])
@pytest.mark.parametrize("kind", ["csv", "parquet", "feather"])
def test_it_is_from_files_too(kind, limit, tmp_path):
    path = written(tmp_path, kind)
    options = {"target": "y", "memory_limit": limit}
    model = trained(path, **options)
    check(model, be.evaluate(model, path, **options))


class HuggingFace:
    """What of ``datasets.Dataset`` is used: its own tensors are float32."""

    def __init__(self, y, columns=()):
        self.rows = [{"input": row, "y": value} for row, value in zip(X.tolist(), y, strict=True)]
        self.column_names, self.columns = ["input", "y"], columns
        float64 = type("Value", (), {"dtype": "float64"})()
        self.features = {"y": type("List", (), {"feature": float64})() if y.ndim > 1 else float64}

    def with_format(self, kind, columns=("input", "y"), output_all_columns=False):
        found = copy.copy(self)
        found.columns = columns
        return found

    def __len__(self):
        return N

    def __getitem__(self, index):
        row = self.rows[index]
        return {
            name: torch.tensor(row[name]) if name in self.columns else row[name] for name in row
        }


class Iterable(HuggingFace, IterableDataset):
    """The same, one example after the other."""

    def __iter__(self):
        return map(super().__getitem__, range(N))


HuggingFace.__module__ = Iterable.__module__ = "datasets.of_the_test"


@pytest.mark.parametrize("y", [Y, np.stack([Y, -Y], 1)], ids=["one", "two"])
def test_datasets_of_hugging_face_do_not_round_either(y):
    model = trained(HuggingFace(y), outputs=2 * y[0].size, target="y")
    said = be.predict(model, HuggingFace(y), target="y")
    rmse = np.sqrt(np.mean((said.mean - y) ** 2))
    found = be.evaluate(model, HuggingFace(y), target="y")["rmse"]
    assert found == pytest.approx(rmse, rel=1e-9)
    with pytest.raises(ValueError, match=r"cannot hold.*an IterableDataset of Hugging Face rounds"):
        be.evaluate(model, Iterable(y), target="y")


@pytest.mark.parametrize("limit", ["1GB", "5KB"])
def test_the_commands_score_against_the_numbers_of_the_file(limit, tmp_path):
    path = written(tmp_path, "csv")
    asked = {"data": str(path), "target": "y", "task": "regression", "epochs": 2, "members": 2}
    settings = resolve({**asked, "hidden": [16], "memory_limit": limit})
    folder = tmp_path / "model"
    model, _, scores = train_model(settings, folder, progress=False)
    held_out = list(ModelFolder(folder).rows(model))
    truth = np.concatenate([np.asarray(targets) for _, targets in held_out])
    assert set(truth) <= set(Y)
    assert np.std(truth) == pytest.approx(np.std(Y), rel=0.2)
    off = [be.predict(model, inputs).mean - np.asarray(targets) for inputs, targets in held_out]
    rmse = np.sqrt(np.mean(np.concatenate(off) ** 2))
    assert scores["rmse"] == pytest.approx(rmse, rel=1e-9)
    assert evaluate_folder(folder)[1]["rmse"] == pytest.approx(rmse, rel=1e-9)
    predict_file(folder, path, tmp_path / "said.csv", progress=False)
    said = pd.read_csv(tmp_path / "said.csv")
    rmse = np.sqrt(np.mean((said["mean"] - TABLE["y"]) ** 2))
    assert evaluate_folder(folder, str(path))[1]["rmse"] == pytest.approx(rmse, rel=1e-9)


@pytest.mark.parametrize("loss", ["mse", "huber", "quantile"])
def test_whole_numbers_above_two_to_the_24th_are_told_apart(loss):
    y = 2**30 + (X[:, 0] > 0) + 2 * (X[:, 1] > 0)
    model = trained((F32, y), loss, outputs=3 if loss == "quantile" else 1)
    said = be.predict(model, F32)
    rmse = np.sqrt(np.mean((said.mean - y.astype(np.float64)) ** 2))
    assert be.evaluate(model, (F32, y))["rmse"] == pytest.approx(rmse, rel=1e-9)
    assert model.loss.deviation == pytest.approx([y.std()])
    assert rmse < 2


def test_the_loss_in_standard_units_is_that_of_a_slow_loop():
    y = torch.from_numpy(np.stack([Y, Y * 1e-12, np.where(X[:, 0] > 1, np.nan, -Y)], 1))[:40]
    loss = standardised(GaussianNLL(), (1, 2, 6), [y])
    outputs = torch.randn(40, 2, 6)
    found, means = loss(outputs, y), np.nanmean(y.numpy(), 0)
    deviations = np.nanstd(y.numpy(), 0)
    for example in range(40):
        for member in range(2):
            mean, raw = outputs[example, member].double().numpy().reshape(2, 3)
            scale = np.log1p(np.exp(raw)) + 1e-3
            z = (((y[example].numpy() - means) / deviations) - mean) / scale
            entries = 0.5 * np.log(2 * np.pi) + np.log(scale) + z**2 / 2
            assert found[example, member].item() == pytest.approx(np.nanmean(entries), rel=1e-4)


def test_labels_from_a_loader_may_be_of_any_type():
    there = torch.from_numpy(X > 0)
    for labels in (there, there.double(), there.long(), there.to(torch.uint8)):
        model = be.BatchEnsemble(network(), members=2)
        be.fit(model, loader(F32, labels), loss="binary_cross_entropy", epochs=1)
        assert be.evaluate(model, loader(F32, labels))["nll"] > 0


def test_a_shift_by_rounding_is_no_less_than_a_spread():
    y = np.where(X[:, 0] > 0, 1e9 + 10, 1e9 + 74)  # both rounded down by 10
    with pytest.raises(ValueError, match="y has numbers that float32"):
        trained((F32, y), "mse", outputs=1, standardise_targets=False)
    assert trained((F32, y), "mse", outputs=1).loss.mean == pytest.approx([y.mean()], rel=1e-14)


def test_two_neighbours_of_float32_are_no_constant():
    y = torch.tensor([1e7, 1e7 + 1] * 50)
    assert standardised(MSE(), (1, 2, 1), [y]).deviation == (0.5,)
    assert standardised(MSE(), (1, 2, 1), [torch.full((9,), 0.1).double()]).deviation == (1.0,)


LOST = r"y has numbers that float32, the network's type, cannot hold: they are spread by 0\.\d+ "
LOST += r"around (9999999|10000000)\.\d+, where those of float32 are 1 apart; give standardise_tar"
IN_OWN_UNITS = {**IN_MEMORY, "csv": None, "parquet": None, "streamed": None}


@pytest.mark.parametrize("form", IN_OWN_UNITS)
def test_targets_that_float32_cannot_hold_are_refused_in_their_own_units(form, tmp_path):
    options = {}
    if form in IN_MEMORY:
        data = IN_MEMORY[form]()
    else:
        data = written(tmp_path, "csv" if form == "csv" else "parquet")
        options = {"target": "y", "memory_limit": SMALL if form == "streamed" else 1 << 20}
    model = be.BatchEnsemble(network(1), members=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=LOST):
        be.fit(model, data, loss="mse", epochs=1, **options)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model.loss is None or form in (
        "loader",
        "dataset",
    )  # whose batches come with the first step


def test_a_loss_of_ones_own_does_not_get_them_rounded():
    model = be.BatchEnsemble(network(1), members=2)
    with pytest.raises(ValueError, match="y has numbers that float32, the network's type, cannot"):
        be.fit(model, (F32, Y), loss=lambda outputs, y: (outputs[..., 0] - y[:, None]) ** 2)


def test_numbers_beyond_float32_are_refused_or_standardised():
    y = Y * 1e33
    with pytest.raises(
        ValueError, match=r"y has numbers .* cannot hold, such as 1e\+40; give stan"
    ):
        trained((F32, y), standardise_targets=False)
    model = trained((F32, y))
    assert be.evaluate(model, (F32, y))["rmse"] == pytest.approx(own_scores(model, y=y)[0])
    assert np.isfinite(be.predict(model, F32).total).all()
    with pytest.raises(
        ValueError, match=r"whose squares float64 holds, .* got targets around 1e\+"
    ):
        trained((F32, Y * 1e193))


@pytest.mark.parametrize(
    "y", [2**53 + np.arange(N), 2**63 + np.arange(N, dtype=np.uint64)], ids=["int64", "uint64"]
)
def test_whole_numbers_that_float64_cannot_tell_apart_are_refused(y):
    with pytest.raises(
        ValueError, match=r"y must hold whole numbers .*2 to the (53|63)rd.*, got 9"
    ):
        trained((F32, y))


def test_what_a_network_in_float64_holds_is_not_refused():
    model = be.BatchEnsemble(network(1).double(), members=2)
    be.fit(model, (X + 1e9, Y), loss="mse", epochs=1)
    assert model.loss == MSE()


TIMES = 1.7e9 + 60.0 * np.arange(N)
FINE = {
    "sorted times": (np.stack([TIMES, X[:, 1]], 1), X[:, 0]),
    "target of times": (X, TIMES),
    "constants": (np.stack([np.full(N, 0.1), np.full(N, 1e9 + 0.1)], 1), np.full(N, 1 / 3)),
    "noise of float64": (np.stack([np.full(N, 0.1), 0.1 + 1e-17 * X[:, 0]], 1), X[:, 0]),
    "many sizes": (10.0 ** (6 * X), 10.0 ** (4 * X[:, 0])),
    "dates as numbers": (np.stack([20260101 + 7 * np.arange(N) // 4, X[:, 0]], 1), X[:, 1]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", FINE)
def test_what_float32_holds_well_enough_passes_without_a_word(case, tmp_path):
    features, y = FINE[case]
    frame = pd.DataFrame({"a": features[:, 0], "b": features[:, 1], "y": y})
    frame.to_parquet(tmp_path / "fine.parquet", row_group_size=50)
    for data, options in (
        ((features, y), {}),
        (frame, {"target": "y"}),
        (tmp_path / "fine.parquet", {"target": "y", "memory_limit": SMALL}),
    ):
        model = be.BatchEnsemble(network(1), members=2)
        be.fit(model, data, loss="mse", lr=1e-30, epochs=1, **options)


@pytest.mark.parametrize("form", ["array", "list", "frame", "pair", "csv", "streamed"])
def test_features_that_float32_cannot_hold_are_refused(form, tmp_path):
    large = X + np.array([0, 1e9])
    frame = pd.DataFrame({"a": large[:, 0], "b": large[:, 1], "y": X[:, 0]})
    frame.to_csv(tmp_path / "large.csv", index=False)
    files = tmp_path / "large.csv", {"target": "y"}
    data, options = {
        "array": ((large, X[:, 0]), {}),
        "list": ((large.tolist(), X[:, 0]), {}),
        "frame": (frame, {"target": "y"}),
        "pair": ((frame[["a", "b"]], X[:, 0]), {}),
        "csv": files,
        "streamed": (files[0], {**files[1], "memory_limit": SMALL}),
    }[form]
    column = "1" if form in ("array", "list") else "'b'"
    with pytest.raises(
        ValueError,
        match=rf"column {column} has numbers that float32.* spread by (1|0\.9)\d* around 1",
    ):
        trained(data, **options)


def test_features_beyond_float32_are_refused_wherever_they_come_from():
    model = trained((F32, Y))
    beyond = np.where(np.arange(N)[:, None] == 3, 1e39, X)
    with pytest.raises(
        ValueError, match=r"got 1e\+39 in row 4, X\[3, 0\]; torch\.float32, .*; divide"
    ):
        be.predict(model, beyond)
    with pytest.raises(ValueError, match=r"got 1e\+39 in row 4"):
        trained((beyond, Y))


def test_weights_count_by_their_ratio_whatever_their_size():
    w = RNG.uniform(0.5, 2, N)
    one, large, small = (trained((F32, Y, w * scale)) for scale in (1.0, 2.0**140, 2.0**-160))
    for (name, value), a, b in zip(
        one.state_dict().items(),
        large.state_dict().values(),
        small.state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(a, value, msg=name)
        torch.testing.assert_close(b, value, msg=name)


def test_times_are_no_numbers(tmp_path):
    days = pd.date_range("2026-01-01", periods=N)
    asked = {"target": "y", "task": "regression", "epochs": 1, "hidden": [4]}
    path = tmp_path / "y.parquet"
    TABLE.assign(y=days).to_parquet(path)
    with pytest.raises(ValueError, match=r"'y' must hold numbers, got datetime64\[.*unit"):
        train_model(resolve({**asked, "data": str(path)}), tmp_path / "model", progress=False)
    two = Points(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"targets must hold numbers, got datetime64\[D\]; give"):
        score(two, np.array(["2026-01-01", "2026-01-02"], "datetime64[D]"))
    with pytest.raises(TypeError, match="y must hold numbers, got an array of datetime64"):
        trained((F32, days.to_numpy()))


def test_r_squared_of_contributions_is_that_of_the_scores():
    said = Points(Y[:, None] + 0.1 * RNG.normal(size=(N, 3)))
    found = contributions("r2", [said], Y)
    assert found is not None
    assert found.score == pytest.approx(score(said, Y)["r2"], rel=1e-9)


def test_a_checkpoint_knows_the_same_targets_as_float32_again(tmp_path):
    y = 3.0 + 0.1 * X[:, 0]
    options = {"checkpoints": tmp_path / "held", "epochs": 1}
    trained((F32, y.astype(np.float32), np.ones(N, np.float32)), **options)
    model = be.BatchEnsemble(network(), members=2)
    settings = {"lr": 1e-2, "loss": "gaussian_nll", "standardise_targets": True, "resume": True}
    history = be.fit(model, (F32, y, np.ones(N)), **settings, **options)
    assert len(history.losses) == 1  # all of it read
    with pytest.raises(CheckpointError, match="its data is"):
        be.fit(model, (F32, y + 1, np.ones(N)), **settings, **options)


def test_a_saved_model_gives_the_targets_unit_back(tmp_path):
    model = trained((F32, Y))
    again = load(be.save(model, tmp_path))
    assert isinstance(again.loss, Standardised)
    assert again.loss == model.loss
    np.testing.assert_array_equal(be.predict(again, F32).mean, be.predict(model, F32).mean)
