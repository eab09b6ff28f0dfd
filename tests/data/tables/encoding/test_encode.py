"""A table becomes the same inputs, cell by cell, in blocks, and from every library and file."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import as_table
from batchensemble.data.tables.encoding.encoding import fit_encoding
from batchensemble.data.tables.rows import open_rows
from tables import ROWS, block_of, encoding_of, everything, slowly_encoded

KINDS = {
    "length": "number", "count": "number", "gappy": "number", "open": "truth value",
    "job": "category", "street": "category", "price": "number", "when": "date", "day": "date",
    "stray": "number", "same": "left out", "id": "left out",
}  # fmt: skip


def test_each_column_gets_its_treatment():
    encoding = encoding_of(everything())
    assert {one.name: one.kind for one in encoding.treatments} == KINDS
    assert encoding.notes() == (
        "column 'job': 1 rare level taken as unknown",
        "column 'price': read as numbers, written as in '$1,234.5'",
        "column 'stray': 1 value that is no number, 'x', is taken as a gap",
        "column 'same' is left out: it has one value only",
        "column 'id' is left out: its values are all different, so that it only identifies the "
        "row; name it in keep (--keep) to use it",
    )


def test_inputs_are_those_of_a_loop_over_cells():
    encoding, frame = encoding_of(everything()), everything(seed=1)
    frame.loc[2, "job"] = "never seen"
    found = encoding.encode(block_of(frame), "table")
    assert found.dtype == np.float32
    assert found.shape == (ROWS, encoding.inputs.width) == (ROWS, len(encoding.input_names))
    np.testing.assert_allclose(found, slowly_encoded(encoding, frame), atol=2e-6)


def test_numbers_of_the_training_data_are_normal_and_flags_small():
    encoding, frame = encoding_of(everything(2000)), everything(2000)
    found, inputs = encoding.encode(block_of(frame), "table"), encoding.inputs
    length = found[:, encoding.input_names.index("length")]
    assert abs(length.mean()) < 0.05
    assert abs(length.std() - 1) < 0.05
    flags = found[:, inputs.numbers : inputs.numbers + inputs.flags]
    assert np.abs(flags).max() <= 1
    for number, levels in enumerate(inputs.levels):
        codes = found[:, inputs.numbers + inputs.flags + number]
        assert set(codes) <= set(range(levels + 1))


def test_the_plain_layout_standardises_and_has_an_input_for_each_level():
    encoding, frame = encoding_of(everything(), "plain"), everything()
    found = encoding.encode(block_of(frame), "table")
    column = dict(zip(encoding.input_names, found.T, strict=True))
    length = frame["length"]
    expected = (length - length.mean()) / length.std(ddof=0)
    np.testing.assert_allclose(column["length"], expected, rtol=1e-5, atol=1e-6)
    for job in ("cook", "smith", "baker"):
        assert column[f"job = {job}"].tolist() == (frame["job"] == job).tolist()
    assert column["street = (gap)"].tolist() == frame["street"].isna().tolist()
    assert encoding.inputs.levels == ()
    assert column["gappy"][frame["gappy"].isna()].tolist() == [0] * frame["gappy"].isna().sum()


@pytest.mark.parametrize("layout", ["codes", "plain"])
@pytest.mark.parametrize("size", [1, 7, ROWS])
def test_blocks_of_any_size_give_the_same(size, layout):
    frame = everything()
    whole, streamed = encoding_of(frame, layout), encoding_of(frame, layout, size)
    for one, other in zip(whole.treatments, streamed.treatments, strict=True):
        assert one.mean == pytest.approx(other.mean, rel=1e-12)
        assert one.scale == pytest.approx(other.scale, rel=1e-12)
        ignored = {"mean": 0, "scale": 0}
        assert one.to_dict() | ignored == other.to_dict() | ignored
    block = block_of(frame)
    expected = whole.encode(block, "table")
    parts = [block.part(start, start + size) for start in range(0, ROWS, size)]
    found = np.concatenate([whole.encode(part, "table") for part in parts])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(streamed.encode(block, "table"), expected, rtol=1e-6, atol=1e-6)


def test_more_rows_than_the_sample_give_the_same_in_blocks():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=90_001), "y": rng.random(90_001) ** 9})
    for one, other in zip(
        encoding_of(frame).treatments, encoding_of(frame, size=1 << 12).treatments, strict=True
    ):
        assert (one.knots, one.normal) == (other.knots, other.normal)
        assert len(one.knots) == 500


def test_an_empty_block_changes_nothing():
    frame = everything()
    block, encoding = block_of(frame), encoding_of(frame)
    empty = block.part(0, 0)
    names = tuple(block.columns)
    assert fit_encoding(lambda: [empty, block, empty], names, "table") == encoding
    assert encoding.encode(empty, "table").shape == (0, encoding.inputs.width)


def as_file(frame, kind, folder):
    path = folder / f"table.{kind}"
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        pyarrow.parquet.write_table(arrow, path, row_group_size=17)
    else:
        pyarrow.feather.write_feather(arrow, path, chunksize=17)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "feather"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_files_give_the_inputs_of_a_frame(kind, size, tmp_path):
    frame = everything()
    expected = encoding_of(frame).encode(block_of(frame), "table")
    with open_rows(as_file(frame, kind, tmp_path)) as rows:
        blocks = list(rows.blocks(size, rows.names))
    encoding = fit_encoding(lambda: blocks, tuple(frame.columns), "table")
    found = np.concatenate([encoding.encode(block, "table") for block in blocks])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["polars", "arrow"])
def test_tables_of_other_libraries_give_the_inputs_of_a_frame(kind):
    frame = everything()
    encoding = encoding_of(frame)
    expected = encoding.encode(block_of(frame), "table")
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    table = arrow if kind == "arrow" else pl.from_arrow(arrow)
    assert encoding_of(table) == encoding
    np.testing.assert_array_equal(encoding.encode_table(as_table(table), "table"), expected)


@pytest.mark.parametrize("words", [False, True])
def test_how_a_part_of_a_csv_file_was_read_does_not_matter(tmp_path, words):
    # pandas reads 007 as 7 in a part without words, and as text in one with words.
    cells = ["007", "7", "True", "1.50", "2e0"] if words else ["007", "7", "1.50", "2e0"]
    lines = [*cells, *cells, *(["x", "x", "y", "y"] if words else [])] * 30
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" + "".join(f"{cell},{row % 7}\n" for row, cell in enumerate(lines)))
    found = []
    for size in (1, 3, len(lines)):
        with open_rows(path) as rows:
            blocks = list(rows.blocks(size, rows.names))
        encoding = fit_encoding(lambda blocks=blocks: blocks, ("a", "b"), "table")
        parts = [encoding.encode(block, "table") for block in blocks]
        found.append((encoding.treatments[0].levels, np.concatenate(parts).tolist()))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == (("7", "1.5", "2", "True", "x", "y") if words else ())


def test_columns_may_come_in_any_order_and_beside_others():
    frame = everything()
    encoding = encoding_of(frame)
    other = frame[frame.columns[::-1]].assign(more="text")
    np.testing.assert_array_equal(
        encoding.encode_table(as_table(other), "table"), encoding.encode(block_of(frame), "table")
    )
    with pytest.raises(ValueError, match=r"other has no column 'jobs'|other has no column 'job'"):
        encoding.encode_table(as_table(frame.drop(columns="job")), "other")


def test_names_of_columns_may_be_numbers():
    frame = pd.DataFrame({0: [1.0, 2.0, 3.0], 1: ["a", "a", "b"]})
    encoding = encoding_of(frame)
    assert encoding.names == ("0", "1")
    assert encoding.encode_table(as_table(frame), "table").shape == (3, 2)


def test_types_of_pandas_and_numpy_are_read():
    values = [3, None, 5, 8, 13, 21] * 5
    same = [
        pd.array(values, "Int64"), pd.array(values, "Float32"), np.array(values, object),
        np.array([np.nan if each is None else each for each in values], np.float16),
        [None if each is None else f" {each} " for each in values],
    ]  # fmt: skip
    found = []
    for each in same:
        frame = pd.DataFrame({"x": each})
        found.append(encoding_of(frame).encode(block_of(frame), "table").tolist())
    assert all(each == found[0] for each in found)
    words = ["a", "b", "a"] * 10
    for each in (np.array(words), np.array(words, "S"), pd.array(words), pd.Categorical(words)):
        encoding = encoding_of(pd.DataFrame({"x": each}))
        assert encoding.treatments[0].levels == ("a", "b")
    strings = Block(30, {"x": np.array(words)})
    assert fit_encoding(lambda: [strings], ("x",), "table").treatments[0].levels == ("a", "b")
