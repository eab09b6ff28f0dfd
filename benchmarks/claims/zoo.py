"""All networks of the tests' zoo, converted and verified: the table of docs/convert.md.

    python benchmarks/claims/zoo.py            # half a minute
    python benchmarks/claims/zoo.py --write    # puts the table into the page

Each network is converted with the options that it needs and ``init="ones"``. Then its members are
moved apart by noise on all that they own, running statistics too, and ``verify`` compares what they
compute together with what each computes alone, in float64.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import ROOT, as_markdown, as_rich, write_texts

PAGE = ROOT / "docs" / "convert.md"
MEMBERS = 4
EXAMPLES = 3
NOISE = 0.1
TEXT_COLUMNS = 3
HEADINGS = (
    "network",
    "what it is",
    "options it needs",
    "parameters",
    f"more for {MEMBERS} members",
    "largest difference",
    "keys kept",
)


@dataclass(frozen=True)
class Row:
    """What was found of one network.

    Attributes:
        name: in the zoo.
        about: one clause.
        options: the arguments that its conversion needs.
        because: why.
        parameters: of one plain network.
        overhead: the ensemble's further parameters, as a share of these.
        difference: the largest one that ``verify`` found, as a share of the largest output.
        keys_kept: whether the state dictionary of a member has the network's keys, in its order.
    """

    name: str
    about: str
    options: dict[str, Any]
    because: str
    parameters: int
    overhead: float
    difference: float
    keys_kept: bool

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, one a heading."""
        options = ", ".join(f"`{name}={value!r}`" for name, value in self.options.items())
        return (
            self.name,
            self.about,
            f"{options}: {self.because}" if options else "",
            f"{self.parameters:,}",
            f"{self.overhead:.1%}",
            f"{self.difference:.0e}" if self.difference else "0",
            "yes" if self.keys_kept else "no",
        )


def main() -> None:
    """Print the table, and write it into the page if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    lines = [HEADINGS, *(row.cells() for row in measure_all())]
    title = f"{len(lines) - 1} networks, {MEMBERS} members, float64"
    Console(width=200).print(as_rich(title, lines, text_columns=TEXT_COLUMNS))
    if arguments.write:
        write_texts(PAGE, {"zoo": as_markdown(lines, text_columns=TEXT_COLUMNS)})


def measure_all() -> list[Row]:
    """Convert and verify each network of the zoo."""
    declare_operators()  # and tests/zoo is on the path
    from zoo import ZOO

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return [measure(each) for each in track(ZOO.values(), "converting", transient=True)]
    finally:
        torch.set_default_dtype(before)


def measure(specimen: Any) -> Row:
    """Convert and verify one network."""
    torch.manual_seed(0)
    network = specimen.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its nested tensors
        model = be.BatchEnsemble(network, members=MEMBERS, init="ones", **specimen.options)
        move_apart(model)
        positional, keywords = specimen.inputs(EXAMPLES)
        verification = model.verify(*positional, **keywords)
    report = model.report()
    return Row(
        name=specimen.name,
        about=specimen.about,
        options=specimen.options,
        because=specimen.because,
        parameters=report.parameters_of_one,
        overhead=report.overhead,
        difference=verification.largest_difference,
        keys_kept=list(model.member(1).state_dict()) == list(network.state_dict()),
    )


def move_apart(model: be.Ensemble) -> None:
    """Give each member weights and running statistics that no other member has."""
    owned = [
        group["params"] for group in model.parameter_groups(lr=1.0) if group["name"] != "shared"
    ]
    means = [buffer for name, buffer in model.named_buffers() if name.endswith("running_mean")]
    with torch.no_grad():
        for tensor in (*itertools.chain(*owned), *means):
            tensor.add_(NOISE * torch.randn_like(tensor))


if __name__ == "__main__":
    main()
