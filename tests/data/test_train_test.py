"""Data of train: the same table in any kind of file, whole or streamed, split and scaled alike."""

import numpy as np
import pandas as pd
import pytest
import torch

from batchensemble.data.sources import open_batches
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.split import SHARES, HashPart, Split
from batchensemble.data.train_test import open_data
from batchensemble.losses import as_loss

pytest.importorskip("pyarrow")
CLASSES, NUMBERS = as_loss("cross_entropy"), as_loss("mse")
KINDS = ["csv", "parquet", "feather", "folder"]
ROWS, SMALL = 500, 4_000  # a table, and a memory limit that it does not fit


def frame_of(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)) * [1, 50, 0] + [0, 900, 7], columns=[*"abc"])
    frame["y"] = np.array(["no", "yes", "perhaps"])[rng.integers(3, size=rows)]
    return frame


def write(folder, frame: pd.DataFrame, kind: str) -> str:
    path = folder / f"table.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path, index=False, row_group_size=37)
    elif kind == "feather":
        frame.to_feather(path)
    else:
        path.mkdir()
        for number, start in enumerate(range(0, len(frame), 99)):
            frame[start : start + 99].to_parquet(path / f"{number}.parquet", index=False)
    return str(path)


def parts_of(data) -> dict:
    """Return all parts of training data by their names."""
    parts = (data.train, data.validation, data.calibration, data.held_out)
    return dict(zip(SHARES, parts, strict=True))


def arrays(part) -> tuple[np.ndarray, np.ndarray]:
    """Return all of a part, in its order."""
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    pairs = list(open_batches(part, 64, memory_limit=SMALL, read=CLASSES.read, **place))
    return tuple(torch.cat(each).numpy() for each in zip(*pairs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_in_memory_is_split_alike_whatever_file_it_is_in(kind, tmp_path):
    data = open_data(write(tmp_path, frame_of(), kind), "y", loss=CLASSES)
    expected = open_data(write(tmp_path / "..", frame_of(), "csv"), "y", loss=CLASSES)
    assert data.columns.class_names == ("no", "perhaps", "yes")
    assert data.held_out_rows == 75
    assert [len(part[0]) for part in parts_of(data).values()] == [300, 50, 75, 75]
    for part, others in zip(parts_of(data).values(), parts_of(expected).values(), strict=True):
        for one, other in zip(part, others, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_table_is_split_by_row_and_scaled_by_its_training_part(kind, tmp_path):
    frame = frame_of()
    data = open_data(write(tmp_path, frame, kind), "y", loss=CLASSES, memory_limit=SMALL)
    assert isinstance(data.train, Files)
    names = ("no", "perhaps", "yes")
    assert data.columns.class_names == names
    rows = {part: HashPart(part).positions(0, ROWS) for part in SHARES}
    raw = frame[[*"ab"]].to_numpy()  # c is the same in all rows
    assert data.columns.feature_names == ("a", "b")
    trained = raw[rows["training"]]
    scaled = (raw - trained.mean(0)) / trained.std(0)
    for name, part in parts_of(data).items():
        features, labels = arrays(part)
        assert part.rows == len(rows[name])
        np.testing.assert_allclose(features, scaled[rows[name]], atol=1e-5)
        assert [names[label] for label in labels] == frame["y"][rows[name]].tolist()


@pytest.mark.parametrize("scoring", [True, False])
@pytest.mark.parametrize("limit", [SMALL, 1 << 20])
def test_a_split_of_an_early_version_still_holds_out_a_fifth(limit, scoring, tmp_path):
    frame = frame_of()
    path = write(tmp_path, frame, "parquet")
    rule = "hashed" if limit == SMALL else "drawn"
    other = {} if scoring else {"validation": write(tmp_path, frame, "csv")}
    data = open_data(path, "y", loss=CLASSES, memory_limit=limit, split=Split(rule), **other)
    assert data.held_out_rows == (100 if scoring else ROWS)
    assert data.validation is data.held_out
    assert data.calibration is None
    assert len(arrays(data.train)[0]) == (400 if scoring else ROWS)


@pytest.mark.parametrize("values", [[3, 1, 7], [True, False, True], [2.0, 0.0, 1.0]])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_classes_in_numbers_are_numbered_alike_whole_and_streamed(values, kind, tmp_path):
    frame = frame_of().assign(y=np.array(values)[np.arange(ROWS) % 3])
    path = write(tmp_path, frame, kind)
    whole = open_data(path, "y", loss=CLASSES)
    streamed = open_data(path, "y", loss=CLASSES, memory_limit=SMALL)
    names = streamed.columns.class_names
    assert names == whole.columns.class_names == tuple(map(str, sorted(set(values))))
    chosen = HashPart("scoring").positions(0, ROWS)
    labels = arrays(streamed.held_out)[1]
    assert [names[label] for label in labels] == frame["y"][chosen].astype(str).tolist()


@pytest.mark.parametrize("limit", [SMALL, 1 << 20])
def test_a_file_of_ones_own_scores_and_its_share_is_trained_on(limit, tmp_path):
    frame = frame_of()
    path = write(tmp_path, frame, "parquet")
    other = tmp_path / "other.csv"
    # Columns in another order and one beside them are as good.
    frame[["y", "c", "b", "a"]][:400].assign(d="text").to_csv(other, index=False)
    data = open_data(path, "y", loss=CLASSES, validation=str(other), memory_limit=limit)
    train, held_out = arrays(data.train), arrays(data.held_out)
    assert [len(arrays(part)[0]) for part in parts_of(data).values()] == [375, 50, 75, 400]
    np.testing.assert_allclose(train[0].mean(0), 0, atol=1e-5)
    everything = {
        tuple(row) for part in list(parts_of(data).values())[:3] for row in arrays(part)[0]
    }
    assert {tuple(row) for row in held_out[0]} <= everything


@pytest.mark.parametrize("limit", [SMALL, 1 << 20])
def test_numbers_are_targets_as_they_stand(limit, tmp_path):
    frame = frame_of().assign(y=np.arange(ROWS) / 8)
    path = write(tmp_path, frame, "parquet")
    data = open_data(path, "y", loss=NUMBERS, memory_limit=limit)
    assert data.columns.class_names == ()
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    found = []
    for part in parts_of(data).values():
        batches = open_batches(part, 64, memory_limit=limit, read=NUMBERS.read, **place)
        found += [targets for _, targets in batches]
    assert torch.cat(found).sort().values.tolist() == frame["y"].tolist()


@pytest.mark.parametrize(
    ("changed", "loss", "sentence"),
    [
        (dict.fromkeys("abc", 1), CLASSES, "no column to learn from: .*'a' .*one value only"),
        ({"a": -np.inf}, CLASSES, "column 'a' must hold finite numbers, got -inf in row"),
        ({"y": "same"}, CLASSES, "must hold at least two classes, got only 'same'"),
        ({"y": np.arange(ROWS) / 7}, CLASSES, "must hold classes, .* put it into bins"),
        ({"y": np.arange(ROWS)}, CLASSES, "must hold classes, got 500 different values"),
        (
            {"y": [*"ab"] * 250},
            NUMBERS,
            "must hold a number in every row, got 'a' in row 1; .* leave the loss",
        ),
    ],
)
def test_a_large_table_that_cannot_be_used_is_refused_before_training(
    changed, loss, sentence, tmp_path
):
    path = write(tmp_path, frame_of().assign(**changed), "parquet")
    with pytest.raises(ValueError, match=rf"table\.parquet.*{sentence}"):
        open_data(path, "y", loss=loss, memory_limit=SMALL)


@pytest.mark.parametrize("part", SHARES)
def test_a_row_of_any_part_is_checked_before_training(part, tmp_path):
    frame = frame_of()
    row = int(HashPart(part).positions(0, ROWS)[-1])
    frame.loc[row, "b"] = np.inf
    path = write(tmp_path, frame, "parquet")
    with pytest.raises(ValueError, match=f"column 'b' .* got inf in row {row + 1};"):
        open_data(path, "y", loss=CLASSES, memory_limit=SMALL)


def test_what_does_not_go_together_is_refused(tmp_path):
    path = write(tmp_path, frame_of(), "csv")
    with pytest.raises(ValueError, match="moons has classes, and loss=MSE is for numbers"):
        open_data("moons", loss=NUMBERS)
    with pytest.raises(ValueError, match="moons has its own held-out rows"):
        open_data("moons", loss=CLASSES, validation=path)
    with pytest.raises(ValueError, match=r"'y' must hold a number in every row, got '.*' in row 1"):
        open_data(path, "y", loss=NUMBERS)
    frame_of().drop(columns="b").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(ValueError, match=r"less\.csv has no feature 'b'"):
        open_data(path, "y", loss=CLASSES, validation=str(tmp_path / "less.csv"))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"is a folder without Parquet files; give a CSV file"):
        open_data(str(tmp_path / "nothing"), "y", loss=CLASSES)
