"""The file of a run is whole or not there, and nothing but the same run is read from it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from batchensemble.comparison.compare import compare
from batchensemble.comparison.files import RunFiles, fingerprint_of
from batchensemble.comparison.results import Settings
from batchensemble.data.datasets import load_dataset

VALUES = {"method": "batch", "losses": [0.1, float("nan"), 1 / 3]}
ARRAYS = {"held_out": np.random.default_rng(0).random((4, 3, 2)), "plane": np.zeros((0, 3, 2))}

WRITTEN_BY_0_1 = Path(__file__).parents[1] / "data" / "written_by_0_1"


@pytest.fixture
def files(tmp_path):
    files = RunFiles(tmp_path / "runs", "of this")
    files.write("batch-seed-0", VALUES, ARRAYS)
    return files


def test_what_was_written_is_read_bit_by_bit(files):
    values, arrays = files.read("batch-seed-0")
    assert json.dumps(values) == json.dumps(VALUES)  # NaN is no equal of itself
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_a_run_that_is_not_there_is_none(files):
    assert files.read("batch-seed-1") is None


def test_a_run_of_other_settings_is_none_and_written_over(files):
    other = RunFiles(files.folder, "of that")
    assert other.read("batch-seed-0") is None
    other.write("batch-seed-0", {}, {})
    assert other.read("batch-seed-0") == ({}, {})
    assert files.read("batch-seed-0") is None


def test_nothing_but_the_run_lies_in_the_folder(files):
    assert [path.name for path in files.folder.iterdir()] == ["batch-seed-0.npz"]


def test_a_file_cut_short_is_none(files):
    path = files.path("batch-seed-0")
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert files.read("batch-seed-0") is None


def test_a_flipped_bit_never_gives_another_result(files):
    path = files.path("batch-seed-0")
    content = path.read_bytes()
    unharmed = json.dumps(VALUES), ARRAYS["held_out"].tobytes()
    noticed = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found = files.read("batch-seed-0")
        noticed += found is None
        if found is not None:  # a date in the archive, say
            assert (json.dumps(found[0]), found[1]["held_out"].tobytes()) == unharmed
    assert noticed > len(content) / 7 / 2


def test_a_pickle_is_not_read(files):
    np.savez(files.path("batch-seed-0"), run=np.array({"fingerprint": "of this"}, dtype=object))
    assert files.read("batch-seed-0") is None


def test_on_a_full_disk_the_file_before_stays(files, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*batch-seed-0\.npz: No space left on device"):
        files.write("batch-seed-0", {}, {})
    assert files.read("batch-seed-0") is not None
    assert len(list(files.folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("values", "array"),
    [
        ({"lr": 0.2}, np.zeros(4)),
        ({"lr": 0.1, "seed": 0}, np.zeros(4)),
        ({"lr": 0.1}, np.ones(4)),
        ({"lr": 0.1}, np.zeros((2, 2))),
        ({"lr": 0.1}, np.zeros(8, np.float32)),
    ],
)
def test_a_fingerprint_changes_with_whatever_changes(values, array):
    assert fingerprint_of(values, [array]) != fingerprint_of({"lr": 0.1}, [np.zeros(4)])


def test_a_fingerprint_does_not_depend_on_strides_or_the_order_of_keys():
    grid = np.arange(6.0).reshape(2, 3)
    one = fingerprint_of({"a": 1, "b": 2}, [grid])
    assert fingerprint_of({"b": 2, "a": 1}, [np.asfortranarray(grid)]) == one


def test_a_run_that_version_0_1_wrote_is_read_and_not_trained_again(tmp_path, monkeypatch):
    """It was written by ``compare`` before the modules moved, with these settings."""
    monkeypatch.setattr("batchensemble.comparison.compare.fit", None)
    shutil.copytree(WRITTEN_BY_0_1 / "comparison", tmp_path / "runs")
    settings = Settings(methods=("single",), members=2, epochs=1, hidden=(4,))
    found = compare(load_dataset("breast_cancer"), settings, folder=tmp_path / "runs")
    assert found.read == len(found.runs) == 1
    assert found.runs[0].prediction.probs.shape == (114, 2)
