"""The constants by which layers choose how to compute: what was measured beside what they say.

    python benchmarks/performance/cost_model.py                 # about four minutes
    python benchmarks/performance/cost_model.py --only KERNEL_FACTOR,SMALL_PRODUCT

Each constant says at which size one way becomes quicker than another. Each line here lets one size
grow, times both ways at every step, forward and backward, and finds where they cross; from that
follows what the constant would be for this shape. Where the lines of a constant disagree widely
its rule is a compromise; where their median is far from its value, on the machine that matters,
change it in ``arithmetic.py`` or ``convolution.py``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from batchensemble.layers import convolution
from batchensemble.layers.linear import RankOneLinear
from batchensemble.layers.rank_one import arithmetic as rank_one

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import THREADS, Lines, as_rich, machine
from benchmarks.performance.contenders import Layer
from benchmarks.performance.interleaved import Work, medians

HUGE = 2**60


@dataclass(frozen=True)
class Sweep:
    """A size that grows, and two ways of which the second wins once it is large.

    Attributes:
        constant: whose rule this is.
        shape: what stays as it is.
        size: the name of what grows.
        values: that it takes.
        small: makes what is quicker at small values.
        large: makes what is quicker at large ones.
        times: the constant that puts the crossover at a value, over that value.
    """

    constant: str
    shape: str
    size: str
    values: Sequence[int]
    small: Callable[[int], Work]
    large: Callable[[int], Work]
    times: float

    def line(self, seconds: float) -> tuple[list[str], float | None]:
        """Measure; return the line of the table and what the constant would be."""
        costs = {}
        for value in self.values:
            found = medians(
                {"small": self.small(value), "large": self.large(value)}, seconds=seconds
            )
            costs[value] = found["large"] / found["small"]
        place = crossover(costs)
        says = value_of(self.constant) / self.times
        measured = _beyond(costs) if place is None else f"{place:.0f}"
        would_be = None if place is None else place * self.times
        number = "-" if would_be is None else short(would_be)
        row = [self.constant, self.shape, self.size, measured, f"{says:.0f}", number]
        return row, would_be


def main() -> None:
    """Print the table, and the median of what each constant would be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.1, help="for each way at each size")
    parser.add_argument(
        "--only", metavar="NAME,...", default=",".join(SWEEPS), help=f"of {', '.join(SWEEPS)}"
    )
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in SWEEPS]:
        parser.error(f"--only takes {', '.join(SWEEPS)}, got {', '.join(map(repr, unknown))}")
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    lines = [["constant", "shape", "grows", "ways cross at", "the constant says", "it would be"]]
    found: dict[str, list[float]] = {name: [] for name in names}
    sweeps = list(itertools.chain.from_iterable(SWEEPS[name]() for name in names))
    for sweep in track(sweeps, "crossovers"):
        row, would_be = sweep.line(arguments.seconds)
        lines.append(row)
        if would_be is not None:
            found[sweep.constant].append(would_be)
    console = Console(width=160)
    console.print(as_rich(machine(), lines))
    console.print(as_rich("constants", summary(found)))


def summary(found: Mapping[str, Sequence[float]]) -> Lines:
    """Return the table of constants."""
    lines = [["constant", "is", "median of what it would be", "from", "to"]]
    for name, values in found.items():
        ends = [statistics.median(values), min(values), max(values)] if values else []
        cells = [short(each) for each in ends] or ["-"] * 3
        lines.append([name, short(value_of(name)), *cells])
    return lines


def crossover(costs: Mapping[int, float]) -> float | None:
    """Return where costs fall below 1 for good, between two values by their logarithms.

    ``None`` where they are below 1 from the first on, or not at the last.

    Example:
        >>> crossover({1: 4.0, 4: 0.25}), crossover({1: 0.5, 2: 0.4}), crossover({1: 2.0})
        (2.0, None, None)
    """
    values = list(costs)
    above = [place for place, value in enumerate(values) if costs[value] >= 1]
    if not above or above[-1] == len(values) - 1:
        return None
    left, right = values[above[-1]], values[above[-1] + 1]
    from_left = math.log(costs[left]) / math.log(costs[left] / costs[right])
    return left * (right / left) ** from_left


def _beyond(costs: Mapping[int, float]) -> str:
    """Return on which side of all values the crossover is."""
    values = list(costs)
    return f"> {values[-1]}" if costs[values[-1]] >= 1 else f"< {values[0]}"


def value_of(constant: str) -> float:
    """Return a constant of the cost model."""
    return getattr(home(constant), constant)


def home(constant: str) -> ModuleType:
    """Return the module of a constant."""
    return convolution if constant == "KERNEL_FACTOR" else rank_one


def short(number: float) -> str:
    """Return a large number as a power of two, a small one as it is.

    Example:
        >>> short(4), short(2.0**19)
        ('4.0', '2^19.0')
    """
    return f"2^{math.log2(number):.1f}" if number >= 1024 else f"{number:.1f}"


def forced(work: Work, **constants: int) -> Work:
    """Return the same work under other constants of ``rank_one``."""

    def run() -> None:
        before = {name: getattr(rank_one, name) for name in constants}
        vars(rank_one).update(constants)
        try:
            work()
        finally:
            vars(rank_one).update(before)

    return run


def linear(batch: int, members: int, inputs: int, outputs: int, space: str) -> Layer:
    """Return our linear layer."""
    twin = RankOneLinear(nn.Linear(inputs, outputs), members, space=space)
    return Layer(twin, torch.randn(members, batch, inputs))


def doubled(start: int, end: int) -> list[int]:
    """Return powers of two, both ends included."""
    return [2**each for each in range(int(math.log2(start)), int(math.log2(end)) + 1)]


def weight_space_factor() -> Iterator[Sweep]:
    """Where bending weights beats bending activations, as the batch grows."""
    shapes = ((16, 64, 64), (4, 128, 128), (16, 128, 128), (4, 512, 512), (4, 256, 1024))
    for (members, inputs, outputs), what in itertools.product(shapes, ("train", "infer")):

        def work(batch: int, space: str, case=(members, inputs, outputs), what=what) -> Work:
            return getattr(linear(batch, *case, space), what)()

        fair = inputs * outputs / (inputs + outputs)  # as many numbers in either
        yield Sweep(
            "WEIGHT_SPACE_FACTOR",
            f"M {members}, {inputs} → {outputs}, {what}",
            "B",
            doubled(int(fair / 2), int(fair * 8)),
            lambda batch, work=work: work(batch, "activation"),
            lambda batch, work=work: work(batch, "weight"),
            1 / fair,
        )


def kernel_factor() -> Iterator[Sweep]:
    """Where bending kernels beats bending channels, as the batch grows."""
    for channels, size, what in itertools.product((32, 128), (4, 16), ("train", "infer")):
        layer = nn.Conv2d(channels, channels, 3, padding=1)

        def work(batch: int, space: str, layer=layer, size=size, what=what) -> Work:
            twin = convolution.RankOneConvolution(layer, 4, space=space)
            x = torch.randn(4 * batch, layer.in_channels, size, size)
            return getattr(Layer(twin, x), what)()

        yield Sweep(
            "KERNEL_FACTOR",
            f"M 4, {channels} → {channels}, 3x3, {size}x{size}, {what}",
            "B",
            doubled(1, 64) if size == 4 else doubled(1, 16),
            lambda batch, work=work: work(batch, "activation"),
            lambda batch, work=work: work(batch, "weight"),
            2 * channels * size**2 / layer.weight.numel(),
        )


def cached_numbers() -> Iterator[Sweep]:
    """Where taking gradients apart member by member beats all at once, as members grow."""
    for width in (384, 512, 768):

        def work(members: int, most: int, width=width) -> Work:
            return _middling(members, width, SMALL_WEIGHT=0, CACHED_NUMBERS=most)

        yield Sweep(
            "CACHED_NUMBERS",
            f"B {width // 2}, {width} → {width}",
            "M",
            doubled(1, 16),
            lambda members, work=work: work(members, HUGE),
            lambda members, work=work: work(members, 0),
            width**2,
        )


def small_weight() -> Iterator[Sweep]:
    """Above which weight that pays, where the members' weights together leave the cache."""
    for numbers in (2**20, 2**22):

        def work(weight: int, most: int, numbers=numbers) -> Work:
            width = math.isqrt(weight)
            members = max(1, numbers // weight)
            return _middling(members, width, SMALL_WEIGHT=most, CACHED_NUMBERS=0)

        yield Sweep(
            "SMALL_WEIGHT",
            f"M so that all weights are 2^{numbers.bit_length() - 1}",
            "numbers of a weight",
            [4**each for each in range(6, 10)],
            lambda weight, work=work: work(weight, HUGE),
            lambda weight, work=work: work(weight, 0),
            1.0,
        )


def merged_numbers() -> Iterator[Sweep]:
    """Where saving memory beats merging weights by plain autograd, as the members grow."""
    for width in (64, 128):

        def work(members: int, most: int, width=width) -> Work:
            layer = linear(8 * width, members, width, width, "weight")
            return forced(layer.train(), MERGED_NUMBERS=most)

        yield Sweep(
            "MERGED_NUMBERS",
            f"B {8 * width}, {width} → {width}, weight",
            "M",
            doubled(2**15 // width**2, 2**19 // width**2),
            lambda value, work=work: work(value, HUGE),
            lambda value, work=work: work(value, 0),
            width**2,
        )


def small_product() -> Iterator[Sweep]:
    """Where saving memory beats keeping products, as the members grow."""
    for width in (128, 256):

        def work(members: int, most: int, width=width) -> Work:
            layer = linear(128, members, width, width, "activation")
            return forced(layer.train(), SMALL_PRODUCT=most)

        yield Sweep(
            "SMALL_PRODUCT",
            f"B 128, {width} → {width}, activation",
            "M",
            doubled(2**18 // (128 * width), 2**22 // (128 * width)),
            lambda value, work=work: work(value, HUGE),
            lambda value, work=work: work(value, 0),
            128 * width,
        )


def product_numbers() -> Iterator[Sweep]:
    """Up to how many members together their product beats the product of twice as many."""
    for width in (384, 512, 768):

        def work(together: int, width=width) -> Work:
            numbers = together * width**2
            return _middling(16, width, SMALL_WEIGHT=0, CACHED_NUMBERS=0, PRODUCT_NUMBERS=numbers)

        yield Sweep(
            "PRODUCT_NUMBERS",
            f"B {width // 2}, M 16, {width} → {width}",
            "members together",
            doubled(1, 8),
            lambda together, work=work: work(2 * together),
            work,
            width**2,
        )


def _middling(members: int, width: int, **constants: int) -> Work:
    """Return a step of a layer whose rows are as many as its weights: only its input is kept."""
    layer = linear(width // 2, members, width, width, "activation")
    return forced(layer.train(), SMALL_PRODUCT=0, **constants)


SWEEPS: dict[str, Callable[[], Iterator[Sweep]]] = {
    "WEIGHT_SPACE_FACTOR": weight_space_factor,
    "KERNEL_FACTOR": kernel_factor,
    "CACHED_NUMBERS": cached_numbers,
    "SMALL_WEIGHT": small_weight,
    "PRODUCT_NUMBERS": product_numbers,
    "MERGED_NUMBERS": merged_numbers,
    "SMALL_PRODUCT": small_product,
}

if __name__ == "__main__":
    main()
