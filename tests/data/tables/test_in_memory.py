"""CSV files become columns and class numbers, or a sentence that says where they are broken."""

import numpy as np
import pytest

from batchensemble.data.tables.columns import TableWarning
from batchensemble.data.tables.in_memory import read_table


@pytest.fixture
def read(tmp_path):
    def read(content, target="y"):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, target)

    return read


def features(table) -> np.ndarray:
    """Return the features of the rows that have a target, as numbers."""
    names = table.block.columns
    return np.stack([table.block.numbers("table.csv", name) for name in names], 1)[table.rows]


def rows(*lines, times=10):
    return "\n".join(lines * times) + "\n"


def test_features_and_labels_keep_the_files_order(read):
    table = read("b,y,a\n" + rows("1.5,dog,-2", "3,cat,4e-1", "5,dog,6"))
    assert tuple(table.block.columns) == ("b", "a")
    assert table.class_names == ("cat", "dog")
    np.testing.assert_array_equal(features(table)[:3], [[1.5, -2], [3, 0.4], [5, 6]])
    assert table.labels[:3].tolist() == [1, 0, 1]
    assert table.rows.tolist() == list(range(30))
    assert table.block.rows == len(table.labels) == 30


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("cat", "dog"), ("cat", "dog")),
        (("10", "9"), ("9", "10")),
        (("-1", "1"), ("-1", "1")),
        (("True", "False"), ("False", "True")),
        (("0.0", "1.0"), ("0.0", "1.0")),
        (("0", "x"), ("0", "x")),
        (('"one, two"', "x"), ("one, two", "x")),
        (("größer", "kleiner"), ("größer", "kleiner")),
        (("2020-01-01", "2020-01-02"), ("2020-01-01", "2020-01-02")),
    ],
)
def test_labels_may_be_of_any_kind_and_are_numbered_in_their_order(read, labels, names):
    table = read("a,y\n" + rows(*(f"1,{label}" for label in labels)))
    assert table.class_names == names
    unquoted = [label.strip('"') for label in labels]
    assert [names[number] for number in table.labels[:2]] == unquoted


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfy,a\n" + b"0,1\n1,2\n" * 10,
        b"y,a\r\n" + b"0,1\r\n1,2\r\n" * 10,
        b"y, a\n" + b"0, 1\n1, 2\n" * 10,
        b'"y","a"\n' + b'"0","1"\n"1","2"\n' * 10,
        b"y,a\n" + b"0,1\n1,2\n" * 9 + b"0,1\n1,2",
        b"\n\ny,a\n\n" + b"0,1\n\n1,2\n" * 10 + b"\n\n",
        b"y,a\n" + b"0,1,\n1,2,\n" * 10,
    ],
    ids=[
        "byte order mark",
        "windows line ends",
        "spaces",
        "quotes",
        "no last line end",
        "blank lines",
        "empty field too many",
    ],
)
def test_harmless_ways_to_write_a_table_read_the_same(read, content):
    table = read(content)
    assert tuple(table.block.columns) == ("a",)
    assert table.class_names == ("0", "1")
    assert features(table)[:2].tolist() == [[1], [2]]
    assert table.labels.tolist() == [0, 1] * 10


def test_truth_values_are_numbers(read):
    table = read("a,y\n" + rows("True,0", "False,1"))
    assert features(table)[:2].tolist() == [[1], [0]]


def test_a_long_file_has_each_class_once_though_it_is_of_mixed_kinds(read):
    # pandas reads long files in parts, and 1 in one part need not equal "1" in another.
    table = read("a,y\n" + "1,0\n2,1\n" * 300_000 + "3,x\n" + "1,0\n2,1\n" * 1000)
    assert table.class_names == ("0", "1", "x")


def test_a_class_may_appear_once(read):
    table = read("a,y\n" + rows("1,0", "2,1") + "3,2\n")
    assert table.class_names == ("0", "1", "2")
    assert table.labels[-1] == 2


REGULAR = rows("1,0", "2,1")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "table.csv is empty; a header and rows are needed"),
        ("\n\n", "table.csv is empty"),
        ("a,y\n", "at least 10 rows to train on some and hold out others, got 0"),
        ("a,y\n1,0\n", "at least 10 rows .* got 1"),
        ("a,y\n" + rows("1,0", times=9), "at least 10 rows .* got 9"),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe",
            "table.csv is not text in UTF-8; if it is a CSV file",
        ),
        ("a,y\n1,né\n".encode("latin-1"), "not text in UTF-8; .* --encoding cp1252"),
        ("y\n" + rows("0", "1"), "only the column 'y'; at least one feature .* give --separator"),
        ("a y\n" + rows("1 0", "2 1"), r"no column 'y'.* \(columns: a y\); .* give --separator"),
        ("a,yy\n" + REGULAR, r"no column 'y'; did you mean 'yy'\? \(columns: a, yy\)"),
        ("a,z\n" + REGULAR, r"no column 'y' \(columns: a, z\)"),
        ("a,y\n1,0,5\n" + REGULAR, "not a regular table: a row has more fields than the header"),
        ("a,y\n" + rows("1,0,5"), "not a regular table: a row has more fields than the header"),
        ("a,y\n" + REGULAR + "1,2,3\n", "not a regular table: expected 2 fields in line 22, got 3"),
        ('a,y\n1,"0\n' + REGULAR, "not a regular table: a quote that opens in line 2 is never"),
        ("a,a,y\n" + rows("1,2,0", "1,2,1"), "two columns called 'a'; rename or drop one"),
        ("a,y,y\n" + rows("1,2,0", "1,2,1"), "two columns called 'y'; rename or drop one"),
    ],
)
def test_a_file_that_is_no_table_is_refused(read, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(content)


def test_features_may_be_anything_and_stand_as_they_are(read):
    table = read("a,b,y\n" + REGULAR.replace("1,0", "1,x,0").replace("2,1", ",NA,1") + "inf,-,0\n")
    assert table.block.columns["a"][:2].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert table.block.columns["b"][[0, 2, -1]].tolist() == ["x", "x", "-"]


@pytest.mark.parametrize("line", ["7", "7,", "7,NA", "7, null "])
def test_a_row_without_a_target_is_left_out_with_a_warning(read, line):
    with pytest.warns(TableWarning, match="'y': 1 row has no target and is left out"):
        table = read("a,y\n3,1\n" + line + "\n" + REGULAR)
    assert table.rows.tolist() == [0, *range(2, 22)]
    assert table.block.rows == 22
    assert features(table)[:2].tolist() == [[3], [1]]
    assert table.labels[:2].tolist() == [1, 0]


def test_rows_without_a_target_do_not_count(read):
    with pytest.raises(ValueError, match=r"at least 10 rows .* got 9"):
        read("a,y\n" + "1,0\n2,\n" * 9)
    with pytest.raises(ValueError, match="'y' has no values; there is nothing to learn"):
        read("a,y\n" + "1,\n2,\n" * 9)


def test_a_bad_target_is_named_with_its_row_and_line_though_others_are_missing(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,y\n" + "1,0.5\n2,\n" * 10 + "3,tall\n")
    sentence = r"'y' must hold a number .* got 'tall' in row 21 \(line 22\); fill"
    with pytest.raises(ValueError, match=sentence), pytest.warns(TableWarning, match="10 rows"):
        read_table(path, "y", numbers=True)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["0"] * 20, "must hold at least two classes, got only 0"),
        (["cat"] * 20, "must hold at least two classes, got only 'cat'"),
        (["0.5", "1.0"] * 10, "must hold classes, got 2 different values in 20 rows"),
        (["0", "inf"] * 10, "must hold classes"),
        ([str(n * 0.37) for n in range(100)], "must hold classes, got 100 .* put it into bins"),
        ([str(n) for n in range(100)], "must hold classes, got 100 .* choose another column"),
        ([f"id {n}" for n in range(100)], "must hold classes, got 100 different values"),
    ],
)
def test_a_target_that_is_no_column_of_classes_is_refused(read, labels, sentence):
    with pytest.raises(ValueError, match=f"the target column 'y' {sentence}"):
        read("a,y\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels)))


def test_many_classes_are_fine_where_each_has_many_rows(read):
    table = read("a,y\n" + "".join(f"{n},{n % 100}\n" for n in range(1000)))
    assert len(table.class_names) == 100


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder without Parquet files; give a CSV file"):
        read_table(tmp_path, "y")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "nowhere.csv", "y")
