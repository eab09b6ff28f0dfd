"""``batchensemble predict`` of a large file: its rate over the bare forward pass, and its memory.

    python benchmarks/performance/predicting.py                     # 10 million rows, some minutes
    python benchmarks/performance/predicting.py --rows 1000000
    python benchmarks/performance/predicting.py --write             # and into docs/performance.md

A perceptron of 20 → 64 → 64 → 2 with 4 members, Parquet to Parquet. Each file is predicted in a
fresh process, which tells the most memory that it held beyond what it held after its imports. The
bare forward pass is the model on batches of 4,096 rows that are in memory already, no more.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.progress import track

import batchensemble as be
from batchensemble.data.prediction_batch import PREDICTION_BATCH
from batchensemble.ensembles.networks import multilayer_perceptron

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import THREADS, Lines
from benchmarks.performance.parts import Numbers, Part, arguments_of

ROWS = 10_000_000
SMALL = 10  # times smaller is the first file
FEATURES = 20
GROUP = 100_000
MEGABYTE = 2**20


def measure(seconds: float, rows: int = ROWS) -> Numbers:
    """Predict two files, the first a tenth of the other; nothing but the rows limits the time."""
    rows = rows if seconds else 100_000
    with tempfile.TemporaryDirectory() as place:
        model = save_model(Path(place) / "model")
        bare = bare_rate(model, 2_000_000 if seconds else 50_000)
        sizes = (rows // SMALL, rows)
        return [{"bare": bare, **predicted(Path(place), each)} for each in track(sizes, "files")]


def save_model(folder: Path) -> be.Ensemble:
    """Save an ensemble, untrained, which is as fast as another."""
    torch.manual_seed(0)
    model = be.BatchEnsemble(multilayer_perceptron(FEATURES, (64, 64), 2), members=4)
    names = [f"x{index}" for index in range(FEATURES)]
    be.save(model, folder, data={"feature_names": names, "class_names": ["no", "yes"]})
    return model


def bare_rate(model: be.Ensemble, rows: int) -> float:
    """Return how many rows a second the forward pass alone takes."""
    x = torch.randn(PREDICTION_BATCH, FEATURES)
    model.freeze()
    calls = max(rows // PREDICTION_BATCH, 2)
    with torch.no_grad():
        model(x)
        start = time.perf_counter()
        for _ in range(calls):
            model(x)
    return calls * PREDICTION_BATCH / (time.perf_counter() - start)


def predicted(place: Path, rows: int) -> dict[str, float]:
    """Predict a file of so many rows in a process of its own."""
    source = place / "rows.parquet"
    write_rows(source, rows)
    command = [sys.executable, __file__, "--one", str(place), "--threads", str(THREADS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_rows(path: Path, rows: int) -> None:
    """Write random numbers, a group of rows at a time."""
    rng = np.random.default_rng(0)
    names = [f"x{index}" for index in range(FEATURES)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float32()) for name in names])) as writer:
        for start in range(0, rows, GROUP):
            many = min(GROUP, rows - start)
            columns = rng.standard_normal((FEATURES, many), dtype=np.float32)
            writer.write_table(pa.table(list(columns), names))


def one(place: Path, threads: int) -> None:
    """Predict the file there and print what it took: the process that is measured."""
    from batchensemble.cli.workflows.predict import predict_file

    torch.set_num_threads(threads)
    before = peak()
    start = time.perf_counter()
    rows = predict_file(
        place / "model", place / "rows.parquet", place / "predictions.parquet", progress=False
    )
    seconds = time.perf_counter() - start
    print(json.dumps({"rows": rows, "seconds": seconds, "megabytes": peak() - before}))


def peak() -> float:
    """Return the most memory that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    table = [["rows", "peak beyond the imports, MB", "rows a second", "bare forward", "share"]]
    for each in numbers:
        rate = each["rows"] / each["seconds"]
        share = f"{rate / each['bare']:.0%}"
        memory = f"{each['megabytes']:,.0f}"
        table.append([f"{each['rows']:,}", memory, f"{rate:,.0f}", f"{each['bare']:,.0f}", share])
    return table


PART = Part("predicting", __doc__, measure, {"predicting": lines})


def main() -> None:
    """Do what the command line says."""
    parser = arguments_of(__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the larger file")
    parser.add_argument("--one", type=Path, help="predict the file in this folder, and no more")
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        one(arguments.one, arguments.threads)
        return

    def measured(seconds: float) -> Numbers:
        return measure(seconds, arguments.rows)

    part = Part(PART.name, PART.about, measured, PART.tables)
    part.run(arguments.seconds, write=arguments.write)


if __name__ == "__main__":
    main()
