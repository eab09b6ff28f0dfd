"""What is read whole and what is streamed agree to the letter, and a sentence names the line."""

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from batchensemble.data.sources import open_batches
from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import RowError
from batchensemble.data.tables.csv_files import CsvFile
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.formats import Csv
from batchensemble.data.tables.in_memory import read_table
from batchensemble.data.tables.rows import open_rows
from batchensemble.data.tables.schema import Columns
from batchensemble.data.tables.split import HashPart, table_parts
from batchensemble.data.train_test import labelled_table, open_data
from batchensemble.losses import as_loss

CLASSES, NUMBERS = as_loss("cross_entropy"), as_loss("mse")
STREAMED = 64  # a memory limit in bytes that no table of these fits
# Each in a way of its own: pandas, Arrow and Python do not agree on all of them.
CELLS = [
    *("1", " 2", "3 ", "+4", "-5", ".5", "6.", "7e0", "8E-1", "0009", "-0", "1e-400", '"10"'),
    *('" 11 "', "True", "FALSE", "true", "12345678901234567890", "0.1", "1.7976931348623157e30"),
    *("2.2250738585072011e-30", "9007199254740993", "0.30000000000000004", "5e22", "\t13\t"),
]
LABELS = [
    "007",
    "7",
    " no ",
    "no",
    "NA",
    '"a, b"',
    '"say ""so"""',
    "größer",
    "null",
    '"two\nlines"',
]


def nasty(folder, cells=CELLS, labels=LABELS):
    """Write a table that holds each cell in two columns, and blank lines between."""
    lines = ["\n x , z,y \n"]
    for row, cell in enumerate(cells * 2):
        other, label = cells[-row % len(cells)], labels[row % len(labels)]
        lines.append(f"{cell}, {other} ,{label}" + ("\r\n" if row % 7 else "\n\n  \n"))
    path = folder / "nasty.csv"
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return path


def arrays(part):
    place = {"device": torch.device("cpu"), "dtype": torch.float64}
    pairs = list(open_batches(part, 8, memory_limit=STREAMED, **place))
    return tuple(torch.cat(each).numpy() for each in zip(*pairs, strict=True))


def numbers_of(table):
    """Return the features of a table that was read whole, as numbers."""
    return np.stack([table.block.numbers("nasty.csv", name) for name in ("x", "z")], 1)


def blocks_of(path):
    files = Files([path], "y")
    return files.blocks(files.units, np.float64)


def true_value(cell):
    text = cell.strip('" \t')
    return {"True": 1.0, "true": 1.0, "FALSE": 0.0}.get(text) or (
        0.0 if text == "FALSE" else float(text)
    )


@pytest.mark.parametrize("block", [2, 5, 1 << 14])
def test_a_nasty_file_is_the_same_whole_streamed_and_asked_about(tmp_path, monkeypatch, block):
    monkeypatch.setattr("batchensemble.data.tables.formats.FORMAT_BLOCK_ROWS", block)
    path = nasty(tmp_path)
    whole, streamed = read_table(path, "y"), Files([path], "y")
    assert tuple(whole.block.columns) == streamed.names == ("x", "z")
    names = ("007", "7", "NA", "a, b", "größer", "no", "null", 'say "so"', "two\nlines")
    assert whole.class_names == streamed.class_names == names
    assert streamed.rows == whole.block.rows == 2 * len(CELLS)
    features, labels = (
        np.concatenate(each)
        for each in zip(*streamed.blocks(streamed.units, np.float64), strict=True)
    )
    np.testing.assert_array_equal(features, numbers_of(whole))
    np.testing.assert_array_equal(features[:, 0], [true_value(cell) for cell in CELLS * 2])
    np.testing.assert_array_equal(labels, whole.labels)
    for rows in (block, 1 << 16):
        columns = Columns(("x", "z"), names)
        with columns.open(path) as opened:
            blocks = list(columns.blocks(opened, rows, target="y"))
        asked = np.concatenate([columns.inputs("nasty.csv", block) for block in blocks])
        np.testing.assert_array_equal(asked, numbers_of(whole).astype(np.float32))
        of_it = [columns.targets("nasty.csv", block, "y") for block in blocks]
        np.testing.assert_array_equal(np.concatenate(of_it), labels)


def test_all_parts_of_a_training_agree_as_well(tmp_path):
    path = nasty(tmp_path)
    whole = read_table(path, "y")
    data = open_data(str(path), "y", loss=CLASSES, memory_limit=STREAMED)
    parts = {"training": data.train, "stopping": data.validation}
    parts |= {"calibration": data.calibration, "scoring": data.held_out}
    (mean, scale), inputs = data.columns.encoding.scaling, numbers_of(whole)
    for name, part in parts.items():
        rows = HashPart(name).positions(0, len(whole.labels))
        features, labels = arrays(part)
        np.testing.assert_allclose(features, (inputs[rows] - mean) / scale, rtol=1e-15)
        np.testing.assert_array_equal(labels, whole.labels[rows])


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        ("1_000", "'1_000'"),
        ("\u0661", "'\u0661'"),
        ("0x10", "'0x10'"),
        ("1e", "'1e'"),
        ("NA", "no value"),
        ('" "', "no value"),
        ("inf", "(inf|'inf')"),
        ('"1,5"', "'1,5'"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_what_is_no_number_is_refused_alike_with_its_line(tmp_path, bad, shown, together):
    # Alone in its block, or beside text that is a number.
    cells = [*CELLS[:13], bad, *(["True"] if together else []), *CELLS[13:14]]
    path = nasty(tmp_path, cells, ["7", "8"])
    sentence = rf"nasty.csv: column 'x' must hold a .*got {shown} in row 14 \(line 20\); fill"
    columns = Columns(("x", "z"), ("7", "8"))
    with pytest.raises(ValueError, match=sentence):
        list(blocks_of(path))
    with pytest.raises(ValueError, match=sentence):
        labelled_table(path, columns, "y", 1 << 29)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e400"])
@pytest.mark.parametrize("row", range(38, 44))  # of different parts
def test_what_is_infinite_is_refused_before_training_with_its_line(tmp_path, cell, row, limit):
    path = tmp_path / "table.csv"
    lines = ["1,0", "2,1"] * 30
    lines[row] = f"{cell},0"
    path.write_text("\n".join(["a,y", *lines]) + "\n")
    sentence = rf"'a' must hold finite numbers, got -?inf in row {row + 1} \(line {row + 2}\)"
    with pytest.raises(ValueError, match=sentence):
        open_data(str(path), "y", loss=CLASSES, memory_limit=limit)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
def test_a_word_in_a_row_that_is_not_trained_on_is_refused_with_its_line(tmp_path, limit):
    path = tmp_path / "table.csv"
    lines = [f"{row},{row % 2}" for row in range(9, 69)]
    data = open_data(str(written(path, lines)), "y", loss=CLASSES, memory_limit=limit)
    assert data.columns.encoding.treatments[0].kind == "number"
    spare = {
        STREAMED: HashPart("scoring").positions(0, 60),
        1 << 29: table_parts(np.arange(9, 69) % 2, classes=2)["scoring"],
    }
    row = int(spare[limit][-1])
    lines[row] = "many,0"
    sentence = rf"'a' must hold a number, .* got 'many' in row {row + 1} \(line {row + 2}\)"
    with pytest.raises(ValueError, match=sentence):
        open_data(str(written(path, lines)), "y", loss=CLASSES, memory_limit=limit)


def written(path, lines):
    path.write_text("\n".join(["a,y", *lines]) + "\n")
    return path


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
@pytest.mark.parametrize(
    ("dialect", "given"),
    [
        ((";", ",", "utf-8"), {}),
        ((";", ",", "utf-16"), {}),
        (("\t", ".", "utf-8-sig"), {}),
        ((";", ",", "cp1252"), {"encoding": "cp1252"}),
        ((":", ".", "latin-1"), {"separator": ":", "encoding": "latin-1"}),
        ((";", ",", "utf-8"), {"separator": ";", "decimal": ","}),
    ],
)
def test_however_it_is_written_the_table_is_the_same(tmp_path, dialect, given, limit):
    separator, decimal, encoding = dialect
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"größe": rng.normal(size=60), "y": ["süß", "herb", "007"] * 20})
    paths = [tmp_path / "plain.csv", tmp_path / "other.csv"]
    frame.to_csv(paths[0], index=False)
    frame.to_csv(paths[1], index=False, sep=separator, decimal=decimal, encoding=encoding)
    plain, other = (
        open_data(str(path), "y", loss=CLASSES, memory_limit=limit, dialect=Dialect(**options))
        for path, options in zip(paths, ({}, given), strict=True)
    )
    assert plain.columns.feature_names == other.columns.feature_names == ("größe",)
    assert plain.columns.class_names == other.columns.class_names == ("007", "herb", "süß")
    for one, two in ((plain.train, other.train), (plain.held_out, other.held_out)):
        for mine, theirs in zip(arrays(one), arrays(two), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
def test_a_point_is_no_decimal_sign_where_the_comma_is(tmp_path, limit):
    path = tmp_path / "table.csv"
    path.write_text("a;y\n" + "1,5;0\n2,5;1\n" * 100 + "1.500;0\n")
    encoding = open_data(str(path), "y", loss=CLASSES, memory_limit=limit).columns.encoding
    assert encoding.notes() == ("column 'a': read as numbers, written as in '1.234,5'",)
    found = encoding.encode(Block(2, {"a": np.array(["1.500", "2,5"])}, decimal=","), "table.csv")
    assert found[0, 0] > 10 > found[1, 0]
    path.write_text("a;y\n" + "1,500;0\n2,500;1\n" * 100)
    encoding = open_data(str(path), "y", loss=CLASSES, memory_limit=limit).columns.encoding
    assert "where the comma is the decimal sign, give --decimal ," in encoding.notes()[0]
    options = {"memory_limit": limit, "dialect": Dialect(decimal=",")}
    encoding = open_data(str(path), "y", loss=CLASSES, **options).columns.encoding
    assert encoding.treatments[0].mean == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
def test_which_words_are_gaps_may_be_said(tmp_path, limit):
    path = tmp_path / "table.csv"
    path.write_text("a,y\n" + "1,0\n2,1\n-999,0\n3,1\n" * 20)

    def treatment(**dialect):
        given = Dialect(**dialect)
        data = open_data(str(path), "y", loss=CLASSES, memory_limit=limit, dialect=given)
        return data.columns.encoding.treatments[0]

    assert treatment().mean < -200
    assert not treatment().gaps
    assert 1.5 < treatment(gaps=("?", "-999")).mean < 2.5
    assert treatment(gaps=("?", "-999")).gaps


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
@pytest.mark.parametrize("value", ["1e160", "-1e300", "3e101"])
def test_numbers_that_have_no_deviation_are_refused(tmp_path, limit, value):
    path = tmp_path / "table.csv"
    path.write_text("a,b,y\n" + "1,1,0\n2,2,1\n" * 20 + f"1,{value},1\n1,1,0\n")
    sentence = r"column 'b' must hold numbers up to (1e\+100|3.4e\+38 .float32.), got -?\d+"
    sentence += r"(\.\d+)?e\+\d+ in row 41 \(line 42\)"
    with pytest.raises(ValueError, match=sentence):
        open_data(str(path), "y", loss=CLASSES, memory_limit=limit)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
def test_so_are_those_that_a_model_cannot_hold(tmp_path, limit):
    path = tmp_path / "table.csv"
    path.write_text("a,y\n1,0\n1e160,1\n")
    columns = Columns(("a",), ("0", "1"), TableEncoding.of_scaling(("a",), ((0.0,), (1e-3,))))
    with pytest.raises(ValueError, match=r"up to .*, got 1e\+163 in row 2 \(line 3\)"):
        arrays(labelled_table(path, columns, "y", limit))


def test_an_error_names_the_line_where_a_field_has_several(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('sep=,\n"a\nb",y\n"1\n",0\n\n2,1\n3\n4,5,6\n')
    file = CsvFile(path)
    assert file.names == ("a\nb", "y")
    assert [file.line(row) for row in range(5)] == [4, 7, 8, 9, None]
    with pytest.raises(ValueError, match="expected 2 fields in line 9, got 3"):
        list(file.frames(10))


def test_the_index_of_a_data_frame_is_a_feature_nowhere(tmp_path):
    frame = pd.DataFrame({"a": np.arange(40.0), "y": [0, 1] * 20})
    frame.index = pd.Index(np.arange(40)[::-1], name="patient")
    frame.to_parquet(tmp_path / "table.parquet")
    for limit in (STREAMED, 1 << 29):
        data = open_data(str(tmp_path / "table.parquet"), "y", loss=CLASSES, memory_limit=limit)
        assert data.columns.feature_names == ("a",)
    with open_rows(tmp_path / "table.parquet") as rows:
        assert next(rows.blocks(10, ["patient"])).columns["patient"].tolist() == list(
            range(39, 29, -1)
        )  # it may be an id


def test_text_that_is_a_number_is_one_in_parquet_too(tmp_path):
    pd.DataFrame({"a": [" 1.5", "2"] * 30, "y": [0, 1, 1] * 20}).to_parquet(tmp_path / "t.parquet")
    for limit in (STREAMED, 1 << 29):
        data = open_data(str(tmp_path / "t.parquet"), "y", loss=CLASSES, memory_limit=limit)
        assert data.columns.encoding.scaling[0] == pytest.approx((1.75,), abs=0.05)


@pytest.mark.parametrize("kind", ["float32", "int64", "bool"])
def test_columns_of_any_type_are_scaled_in_full_precision(tmp_path, kind):
    rng = np.random.default_rng(0)
    values = (16_777_216 + rng.integers(-9, 9, 60)).astype(kind)
    values[::3] = kind != "bool"
    frame = pd.DataFrame({"a": values, "y": [0, 1] * 30})
    frame.to_parquet(tmp_path / "t.parquet")
    data = open_data(str(tmp_path / "t.parquet"), "y", loss=CLASSES, memory_limit=STREAMED)
    rows, found = HashPart("training").positions(0, 60), arrays(data.train)[0][:, 0]
    if kind == "bool":
        np.testing.assert_array_equal(found, values[rows])
        return
    (mean,), (scale,) = data.columns.encoding.scaling
    np.testing.assert_array_equal(found, (values[rows].astype(float) - mean) / scale)


def test_an_error_of_a_row_is_the_same_in_another_process():
    error = RowError("y must be finite", 3, "; drop it", 5)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_streaming_reads_a_file_in_blocks_and_closes_it(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("a,y\n" + "1,0\n2,1\n" * 50)
    monkeypatch.setattr("batchensemble.data.tables.formats.FORMAT_BLOCK_ROWS", 10)
    form = Csv()
    [unit] = form.units(path, "y")
    blocks = form.read(unit, ["a"])
    assert [block.rows for block in itertools.islice(blocks, 3)] == [10] * 3
    blocks.close()
    assert unit.rows == 100
