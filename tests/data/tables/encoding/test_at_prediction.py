"""What comes at prediction and was not in the training data: said once, or refused with its row."""

import warnings

import numpy as np
import pandas as pd
import pytest

from batchensemble.data.tables.columns import TableWarning
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.schema import Columns
from tables import block_of, encoding_of, everything


def encoded(encoding, frame, size=None):
    block = block_of(frame)
    size = size or block.rows
    parts = [block.part(start, start + size) for start in range(0, block.rows, size)]
    return np.concatenate([encoding.encode(part, "new.csv") for part in parts])


def column(encoding, found, name):
    return found[:, encoding.input_names.index(name)].tolist()


@pytest.mark.parametrize("size", [2, None])
def test_a_column_without_a_known_level_warns_once_and_is_unknown(size):
    encoding, frame = encoding_of(everything()), everything().assign(job=["x", "z"] * 60)
    with pytest.warns(TableWarning, match=r"'job' has none of the levels .*'x', 'z'") as found:
        inputs = encoded(encoding, frame, size)
    assert len(found) == 1
    assert column(encoding, inputs, "job") == [0] * 120


def test_some_unknown_levels_are_unknown_without_a_warning():
    encoding, frame = encoding_of(everything()), everything().assign(job=["cook", "z"] * 60)
    inputs = encoded(encoding, frame)
    assert set(column(encoding, inputs, "job")[1::2]) == {0}
    assert 0 not in column(encoding, inputs, "job")[::2]
    encoded(encoding, frame[1:2])  # nor does a single row


@pytest.mark.parametrize("size", [1, 7, None])
@pytest.mark.parametrize("name", ["length", "count", "open", "price", "day"])
def test_gaps_where_there_were_none_warn_once_and_are_in_the_middle(name, size):
    encoding, frame = encoding_of(everything()), everything()
    frame[name] = None
    with pytest.warns(TableWarning, match=f"'{name}' has gaps, and had none") as found:
        inputs = encoded(encoding, frame, size)
    assert len(found) == 1
    assert column(encoding, inputs, name) == [0] * 120
    assert np.isfinite(inputs).all()


def test_gaps_in_a_category_without_any_are_unknown():
    encoding, frame = encoding_of(everything()), everything().assign(job=None)
    inputs = encoded(encoding, frame)
    assert column(encoding, inputs, "job") == [0] * 120


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("length", "many", "must hold a number, as in the training data, got 'many'"),
        ("open", "perhaps", "must hold a number, as in the training data, got 'perhaps'"),
        ("price", "€5", "must hold a number, as in the training data, got '€5'"),
        ("stray", "y", "must hold a number, as in the training data, got 'y'"),
        ("when", "soon", r"must hold a date \(ISO8601\), as in the training data, got 'soon'"),
        ("day", "31.02.2024", r"must hold a date \(%d.%m.%Y\), .* got '31.02.2024'"),
        ("length", np.inf, "must hold finite numbers, got inf"),
        ("length", "-inf", "must hold finite numbers, got -inf"),
    ],
)
def test_another_kind_of_value_is_refused_with_its_row_and_line(name, value, sentence, tmp_path):
    encoding, frame = encoding_of(everything()), everything()
    frame[name] = frame[name].astype(object)
    frame.loc[41, name] = value
    for size in (1, 7, None):
        with pytest.raises(ValueError, match=rf"'{name}' {sentence} in row 42;"):
            encoded(encoding, frame, size)
    frame.to_csv(tmp_path / "new.csv", index=False)
    sentence = rf"new\.csv: column '{name}' {sentence} in row 42 \(line 43\)"
    with pytest.raises(ValueError, match=sentence):
        inputs_of(tmp_path / "new.csv", Columns(encoding.names, (), encoding))


def inputs_of(path, columns):
    with columns.open(path) as rows:
        return [columns.inputs(path.name, block) for block in columns.blocks(rows, 50)]


def test_words_that_were_gaps_are_gaps_again():
    encoding, frame = encoding_of(everything()), everything()
    frame["stray"] = [" x ", "0.5"] * 60
    assert column(encoding, encoded(encoding, frame), "stray is missing") == [1, 0] * 60


def test_numbers_beyond_those_of_the_training_data_are_the_largest():
    frame = pd.DataFrame({"x": np.arange(60.0) ** 2})
    encoding = encoding_of(frame)
    ends = column(encoding, encoded(encoding, frame), "x")
    new = pd.DataFrame({"x": [1e300, -1e300, 2.0**1023]})
    assert column(encoding, encoded(encoding, new), "x") == [ends[-1], ends[0], ends[-1]]
    with pytest.raises(ValueError, match=r"'x' must hold numbers up to 3.4e\+38 .* in row 1;"):
        encoded(encoding_of(frame, "plain"), new)


def test_an_early_models_means_and_deviations_are_an_encoding():
    encoding = TableEncoding.of_scaling(("a", "b"), ((1.0, 2.0), (2.0, 4.0)))
    frame = pd.DataFrame({"b": [2, 6], "a": ["5", "1"]})
    assert encoded(encoding, frame).tolist() == [[2, 0], [0, 1]]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert encoded(encoding, frame.assign(b=[None, 6])).tolist() == [[2, 0], [0, 1]]
    assert [each.category for each in found] == [TableWarning]
