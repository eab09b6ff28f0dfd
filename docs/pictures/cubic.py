"""Draw what three methods say of the cubic toy: means, intervals and standard deviations.

python docs/pictures/cubic.py   # about half a minute; writes docs/images/numbers.png
"""

from __future__ import annotations

from pathlib import Path

from batchensemble.comparison.compare import Settings, compare
from batchensemble.core.atomic_files import write_whole
from batchensemble.data.datasets import load_dataset
from batchensemble.report.plots import curve
from batchensemble.report.plots.saving import png
from batchensemble.report.plots.style import drawing

PICTURE = Path(__file__).parents[1] / "images" / "numbers.png"


def main() -> None:
    """Train, draw and write."""
    settings = Settings(("single", "deep", "batch"), members=4, epochs=60, hidden=(64, 64), lr=3e-3)
    comparison = compare(load_dataset("cubic"), settings)
    drawn = curve(comparison)
    with drawing():
        write_whole(PICTURE, png(drawn[0].figure))


if __name__ == "__main__":
    main()
