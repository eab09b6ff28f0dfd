"""Files larger than memory: the same batches, the same training, whatever is read ahead."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.core.random_state import DataStream
from batchensemble.data import streaming as streams
from batchensemble.data.sources import open_batches
from batchensemble.data.streaming import StreamBatches
from batchensemble.data.tables.formats import Parquet
from batchensemble.training.callbacks.base import Callback

# Types are checked in other tests; here that would take longer than what is tested.
pytestmark = pytest.mark.usefixtures("as_users_run_it")

PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}
torch.manual_seed(0)
X, Y = torch.randn(480, 3), torch.randint(2, (480,))
# A window is an eighth of it: two batches of 16 rows of 20 bytes.
LIMIT = 8 * 2 * 16 * 20
KINDS = ["csv", "parquet", "feather"]


@pytest.fixture
def path(tmp_path, request):
    kind = getattr(request, "param", "parquet")
    columns = {name: X[:, number].numpy() for number, name in enumerate("abc")}
    table, path = pa.table({**columns, "y": Y.numpy()}), tmp_path / f"table.{kind}"
    if kind == "csv":
        # All digits, so that the numbers come back as they were.
        table = table.cast(pa.schema([(name, pa.float64()) for name in "abc"] + [("y", "int64")]))
        pyarrow.csv.write_csv(table, path)
    elif kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=13)
    else:
        pyarrow.feather.write_feather(table, path, chunksize=13)
    return path


def opened(path, **options):
    options = {"target": "y", "memory_limit": LIMIT, **options}
    return open_batches(path, options.pop("batch_size", 16), **options, **PLACE)


def epoch(batches, skip=0, seed=3):
    batches.stream = DataStream(seed)
    batches.stream.begin(0)
    return list(batches.starting_at(skip))


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("path", KINDS, indirect=True)
@pytest.mark.parametrize("batch_size", [1, 16, 480, 500])
def test_without_shuffling_they_are_the_batches_of_the_arrays(path, batch_size):
    batches = opened(path, batch_size=batch_size, memory_limit=1000)
    assert isinstance(batches, StreamBatches)
    expected = list(open_batches((X, Y), batch_size, **PLACE))
    assert len(batches) == len(expected)
    assert_equal(list(batches), expected)
    assert_equal(list(batches.starting_at(len(batches) - 1)), expected[-1:])
    assert_equal(list(batches.starting_at(len(batches))), [])


@pytest.mark.parametrize("path", KINDS, indirect=True)
def test_shuffled_every_example_comes_once_with_its_target(path):
    found = epoch(opened(path, shuffle=True))
    inputs, targets = (torch.cat(part) for part in zip(*found, strict=True))
    order = inputs[:, 0].argsort()
    assert torch.equal(inputs[order], X[X[:, 0].argsort()])
    assert torch.equal(targets[order], Y[X[:, 0].argsort()])
    assert not torch.equal(inputs, X)


def test_parts_of_the_file_come_in_another_order_each_epoch_and_seed(path):
    batches = opened(path, shuffle=True)
    first, again, other = epoch(batches), epoch(batches), epoch(batches, seed=4)
    assert_equal(first, again)
    assert not torch.equal(first[0][0], other[0][0])
    batches.stream.begin(1)
    assert not torch.equal(next(iter(batches))[0], other[0][0])
    # The first window is not the first rows of the file.
    first_window = torch.cat([inputs for inputs, _ in first[:2]])
    assert not torch.equal(first_window.sort(0).values, X[:32].sort(0).values)


@pytest.mark.parametrize("path", KINDS, indirect=True)
@pytest.mark.parametrize("members", [None, 3])
def test_an_epoch_goes_on_from_any_batch(path, members):
    draw = members and (lambda order: torch.stack([order.roll(m, -1) for m in range(members)], -2))
    batches = opened(path, shuffle=True, draw=draw or None)
    expected = epoch(batches)
    for skip in range(len(batches) + 1):
        assert_equal(epoch(batches, skip), expected[skip:])


def test_what_is_skipped_is_not_read(path, monkeypatch):
    read = []
    original = Parquet.read

    def noted(self, unit, columns, target):
        read.append(unit.number)
        return original(self, unit, columns, target)

    monkeypatch.setattr(Parquet, "read", noted)
    list(opened(path).starting_at(29))
    # The window of two batches begins at row 448, and 13 rows are a part.
    assert read == [34, 35, 36]


class Interrupt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            raise KeyError("power")


def train(path, folder=None, **options):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    model = be.BatchEnsemble(net, 3)
    arguments = {"target": "y", "memory_limit": LIMIT, "epochs": 2, "batch_size": 16, **options}
    history = be.fit(model, path, checkpoints=folder, checkpoint_every=5, **arguments)
    return torch.cat([each.detach().flatten() for each in model.parameters()]), history


@pytest.mark.parametrize(
    ("path", "batches"),
    [
        ("parquet", "shared"),
        ("parquet", "independent"),
        ("parquet", "split"),
        ("feather", "shared"),
        ("csv", "shared"),
    ],
    indirect=["path"],
)
def test_an_interrupted_training_goes_on_bit_by_bit(path, tmp_path, batches):
    expected, history = train(path, tmp_path / "unbroken", batches=batches)
    for step in (5, 30):  # 30 steps are an epoch
        folder = tmp_path / f"broken at {step}"
        with pytest.raises(KeyError):
            train(path, folder, batches=batches, callbacks=[Interrupt(step + 1)])
        found, again = train(path, folder, batches=batches, resume=True, callbacks=[Interrupt(-1)])
        assert torch.equal(found, expected)
        assert again.losses == history.losses


def test_without_shuffling_training_is_that_of_the_arrays(path):
    assert_trained = train(path, shuffle=False, validation=path)
    in_memory = train(path, shuffle=False, validation=(X, Y), memory_limit=1 << 20)
    assert torch.equal(assert_trained[0], in_memory[0])
    assert assert_trained[1].validation_nll == in_memory[1].validation_nll


def test_independent_members_see_every_example_once_an_epoch(path):
    model = be.DeepEnsemble(nn.Linear(3, 2), 3)
    torch.manual_seed(0)
    found = list(opened(path, shuffle=True, draw=model.draw))
    inputs = torch.cat([inputs for inputs, _ in found])
    for member in range(3):
        assert torch.equal(inputs[:, member, 0].sort().values, X[:, 0].sort().values)
    assert not torch.equal(inputs[:, 0], inputs[:, 1])


def test_no_more_than_two_windows_are_held(path, monkeypatch):
    held = []
    original = np.empty

    def noted(shape, *args, **kwargs):
        found = original(shape, *args, **kwargs)
        held.append(found.nbytes)
        return found

    batches = opened(path)
    monkeypatch.setattr(streams.np, "empty", noted)
    list(batches)
    assert batches.window_rows == 32
    windows = [size for size in held if size == 32 * 3 * 4]
    assert len(windows) == 2
    assert sum(windows) <= LIMIT / 2


def test_a_window_is_no_longer_than_the_file(path):
    assert opened(path, memory_limit=2000, batch_size=150).window_rows == 150
    assert opened(path, memory_limit=5759, batch_size=500).window_rows == 500


def test_one_batch_reads_one_window(path):
    batches = iter(opened(path))
    assert torch.equal(next(batches)[0], X[:16])
    batches.close()


def test_an_error_in_the_file_reaches_the_training(path):
    table = pyarrow.parquet.read_table(path).to_pandas()
    table.loc[150, "b"] = np.nan
    pyarrow.parquet.write_table(pa.table(table), path, row_group_size=13)
    with pytest.raises(ValueError, match=r"table.parquet: column 'b' .* no value in row 151;"):
        train(path)
    table["b"], table["y"] = 0.0, table["y"].astype("Int64")
    table.loc[150, "y"] = pd.NA
    pyarrow.parquet.write_table(pa.table(table), path, row_group_size=13)
    with pytest.raises(ValueError, match=r"the target column 'y' .* no value in row 151"):
        list(opened(path, batch_size=200))


def test_classes_in_words_are_collected_before(path):
    table = pyarrow.parquet.read_table(path)
    words = pa.array(np.array(["no", "yes"])[Y.numpy()])
    pyarrow.parquet.write_table(table.set_column(3, "y", words), path, row_group_size=13)
    batches = opened(path)
    assert batches.class_names == ("no", "yes")
    assert torch.equal(torch.cat([targets for _, targets in batches]), Y)
    assert train(path)[1].class_names == ["no", "yes"]


@pytest.mark.parametrize("path", KINDS, indirect=True)
def test_balanced_weights_are_those_of_the_arrays(path):
    labels = torch.zeros(480, dtype=torch.int64)
    labels[100:], labels[300:] = 1, 2
    rewrite(path, labels.numpy())
    found, expected = (
        train_of(data, class_weight="balanced", ignore_index=2, shuffle=False)
        for data in (path, (X, labels))
    )
    assert found == expected
    counted = opened(path)
    assert counted.class_counts == {0: 100, 1: 200, 2: 180}
    plain = train_of(path, ignore_index=2, shuffle=False)
    assert found != plain


def rewrite(path, labels):
    """Write the file with other targets."""
    columns = {name: X[:, number].numpy() for number, name in enumerate("abc")}
    table = pa.table({**columns, "y": labels})
    if path.suffix == ".csv":
        table = table.cast(pa.schema([*[(name, pa.float64()) for name in "abc"], table.field("y")]))
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=13)
    else:
        pyarrow.feather.write_feather(table, path, chunksize=13)


def train_of(data, **options):
    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Linear(3, 3), 3)
    if not isinstance(data, tuple):
        options = {"target": "y", "memory_limit": LIMIT, **options}
    return be.fit(model, data, epochs=1, batch_size=16, **options).losses


@pytest.mark.parametrize("path", KINDS, indirect=True)
@pytest.mark.parametrize("words", [False, True])
def test_a_class_too_many_in_the_last_row_is_told_before_training(path, words):
    good = Path(shutil.copy(path, path.with_stem("good")))
    labels = Y.numpy().copy()
    labels[-1] = 2
    rewrite(path, np.array(["a", "b", "c"])[labels] if words else labels)
    steps = []

    class Steps(Callback):
        def on_step(self, run):
            steps.append(run.step)

    sentence = "y must hold class numbers from 0 to 1, since the network has 2 outputs, got 2"
    with pytest.raises(ValueError, match=sentence):
        train(path, callbacks=[Steps()])
    if not words:
        with pytest.raises(ValueError, match=sentence):
            train(good, validation=path, callbacks=[Steps()])
    assert steps == []


def test_the_targets_are_gone_through_once_and_without_the_features(path, monkeypatch):
    read = []
    original = Parquet.read

    def noted(self, unit, columns, target):
        read.append(tuple(columns))
        return original(self, unit, columns, target)

    monkeypatch.setattr(Parquet, "read", noted)
    train_of(path, class_weight="balanced")
    assert read.count(("y",)) == len(opened(path).files.units) == 37


def test_another_file_is_told_apart(path):
    before = opened(path).describe()
    assert before.startswith("480 rows of 3 features in table.parquet (checksum ")
    table = pyarrow.parquet.read_table(path)
    assert opened(path).describe() == before
    pyarrow.parquet.write_table(table.slice(1), path)
    assert opened(path).describe() != before


def test_prediction_streams(path):
    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Linear(3, 2), 3)
    options = {"target": "y", "memory_limit": LIMIT}
    found = be.predict(model, path, batch_size=16, **options)
    # The same rows a pass, since a product of more rows may differ in its last bit.
    in_memory = be.predict(model, X, batch_size=16)
    np.testing.assert_array_equal(found.member_probs, in_memory.member_probs)
    streamed = be.evaluate(model, path, **options)
    assert streamed["nll"] == pytest.approx(be.evaluate(model, (X, Y))["nll"], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_windows_come_in_the_networks_precision(path, dtype):
    batches = open_batches(
        path, 16, target="y", memory_limit=LIMIT, device=torch.device("cpu"), dtype=dtype
    )
    assert isinstance(batches, StreamBatches)
    inputs, _ = next(iter(batches))
    assert torch.equal(inputs, X[:16].to(dtype))


def test_numbers_to_predict_are_streamed_too(path):
    def trained(data, **options):
        torch.manual_seed(1)
        model = be.BatchEnsemble(nn.Linear(2, 1), 3)
        arguments = {"loss": "mse", "epochs": 1, "batch_size": 16, "shuffle": False, **options}
        return be.fit(model, data, **arguments).losses

    table = pyarrow.parquet.read_table(path).select(["a", "b", "c"])
    pyarrow.parquet.write_table(table, path, row_group_size=13)
    assert trained(path, target="c", memory_limit=LIMIT // 2) == trained((X[:, :2], X[:, 2]))
