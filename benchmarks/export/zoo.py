"""All networks of the tests' zoo in ONNX, with a dynamic batch: the table of docs/ship.md.

    python benchmarks/export/zoo.py            # ten minutes
    python benchmarks/export/zoo.py --write    # puts the table into the page
    python benchmarks/export/zoo.py --again    # what was measured already is measured again
    python benchmarks/export/zoo.py --kept     # what was measured already, and nothing more

Each network is converted with the options that it needs and exported with ``outputs="raw"``: all
tensors that it returns. The check of the export runs the file in onnxruntime at batches of 1, 3 and
64; a difference is in units of the largest output. Where it is above 1e-5, torch's own rounding
stands beside it: how far its outputs in float32 are from those in float64. What was found
is kept as it comes, since a network takes seconds.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import ROOT, Lines, as_markdown, as_rich, keep, kept, write_texts

PAGE = ROOT / "docs" / "ship.md"
FILE = ROOT / "runs" / "export" / "zoo.json"
MEMBERS = 3
TOLERANCE = 1e-1  # the table tells the difference, which is not to be an error here
REACHED = 1e-5
MOST = 64  # examples of a check
TEXT_COLUMNS = 2
LONGEST = 150  # characters of a reason


def main() -> None:
    """Print the table, and write it into the page if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--again", action="store_true", help="measure all")
    parser.add_argument("--kept", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    found = kept(FILE) or {}
    if not arguments.kept:
        found = measure_all({} if arguments.again else found)
    lines = table(found)
    Console(width=200).print(as_rich(summary(found), lines, text_columns=TEXT_COLUMNS))
    if arguments.write:
        text = as_markdown(lines, text_columns=TEXT_COLUMNS, note=summary(found))
        write_texts(PAGE, {"exported networks": text})


def measure_all(found: dict[str, Any]) -> dict[str, Any]:
    """Export each network of the zoo that was not exported yet."""
    declare_operators()  # and tests/zoo is on the path
    from zoo import ZOO

    missing = [name for name in reversed(ZOO) if name not in found]  # the quick ones first
    for name in track(missing, "exporting", transient=True):
        found[name] = measure(ZOO[name])
        keep(FILE, {name: found[name] for name in ZOO if name in found})
    return {name: found[name] for name in ZOO}


def measure(specimen: Any) -> dict[str, Any]:
    """Export one network."""
    from batchensemble.core.inputs import Nested
    from batchensemble.ensembles.conversion.tiling import Arguments
    from batchensemble.exports.checking import ExportError

    torch.manual_seed(0)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # torch's, of its nested tensors
        model = be.BatchEnsemble(specimen.make().eval(), members=MEMBERS, **specimen.options)
        positional, keywords = specimen.inputs(4)
        inputs = Nested(Arguments.of(model.plain_network(), positional, keywords).values)
        try:
            file = be.export(
                model, Path(folder) / "m.onnx", inputs, outputs="raw", tolerance=TOLERANCE
            )
        except ExportError as error:
            reason = str(error).removeprefix("the model cannot be exported. Tried ")
            return {"reason": reason[:LONGEST].replace("|", "/")}
        found = {"layout": file.layout, "difference": file.largest_difference}
        if file.largest_difference > REACHED:
            found["rounding"] = rounding(model, inputs)
        return found


def rounding(model: Any, inputs: Any) -> float:
    """Return how far an ensemble in float32 is from itself in float64, of its largest output."""
    from batchensemble.core.pytree import leaves
    from batchensemble.exports.graph_inputs import GraphInputs

    model.eval()
    args, keywords = GraphInputs.of(model, inputs).resized(MOST).split()
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        given = leaves(model(*args, **keywords))
        wanted = leaves(exact(*map(doubled, args), **{n: doubled(x) for n, x in keywords.items()}))
    pairs = zip(given, wanted, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for (_, a), (_, b) in pairs)


def doubled(value: Any) -> Any:
    """Return numbers in float64."""
    return (
        value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
    )


def table(found: dict[str, Any]) -> Lines:
    """Return a row a network."""
    lines = [("network", "layout, or why not", "largest difference")]
    for name, each in found.items():
        if "reason" in each:
            lines.append((name, f"not exported: {each['reason']}", "-"))
        else:
            own = f" (torch itself: {each['rounding']:.0e})" if "rounding" in each else ""
            lines.append((name, each["layout"], f"{each['difference']:.0e}{own}"))
    return lines


def summary(found: dict[str, Any]) -> str:
    """Return the counts."""
    files = [each for each in found.values() if "layout" in each]
    close = sum(each["difference"] <= REACHED for each in files)
    return (
        f"{len(files)} of {len(found)} networks exported with a batch of any size, {close} of them "
        f"within {REACHED:.0e} of torch; {MEMBERS} members, float32"
    )


if __name__ == "__main__":
    main()
