import numpy as np
import pandas as pd
import pytest

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import as_table
from batchensemble.data.tables.encoding.decoding import positions_of, shown_value
from batchensemble.data.tables.encoding.encoding import fit_encoding


@pytest.fixture(params=["codes", "plain"])
def encoded(request):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(60) < 0.2, np.nan, rng.integers(20, 60, 60)),
            "job": rng.choice(["cook", "smith", None], 60),
            "since": pd.date_range("2020-01-01", periods=60, freq="11D"),
            "member": rng.random(60) < 0.5,
        }
    )
    table = as_table(frame)
    columns = {name: table.column(name) for name in table.names}
    encoding = fit_encoding(
        lambda: [Block(60, columns)], table.names, "people", layout=request.param
    )
    return frame, encoding, encoding.encode_table(table, "people", np.float64)


def test_each_input_belongs_to_one_column(encoded):
    _, encoding, inputs = encoded
    positions = positions_of(encoding)
    every = [number for owned in positions.values() for number in owned]
    assert sorted(every) == list(range(inputs.shape[1]))
    for name, owned in positions.items():
        assert all(encoding.input_names[number].startswith(name) for number in owned)


def test_what_a_column_held_is_shown(encoded):
    frame, encoding, inputs = encoded
    for row in range(60):
        age, job = frame["age"][row], frame["job"][row]
        shown = shown_value(encoding, "age", inputs[row])
        assert shown == "(gap)" if np.isnan(age) else shown == pytest.approx(age, abs=1.5)
        assert shown_value(encoding, "job", inputs[row]) == (
            job if isinstance(job, str) else "(gap)"
        )
        assert shown_value(encoding, "member", inputs[row]) == str(frame["member"][row])
        day = pd.Timestamp(shown_value(encoding, "since", inputs[row]))
        assert abs(day - frame["since"][row]) <= pd.Timedelta(days=20)
