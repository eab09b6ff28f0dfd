"""Draw docs/images/architecture.png: the packages, in the order in which they import.

python docs/pictures/architecture.py   # a second
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from batchensemble.core.atomic_files import write_whole
from batchensemble.report.plots.saving import png
from batchensemble.report.plots.style import FAINT, INK, SOFT, drawing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "architecture.png"
PACKAGE = ROOT / "src" / "batchensemble"
WIDTH, HEIGHT, GAP = 10.0, 1.0, 0.28


def rows() -> list[list[str]]:
    """Return the packages of each row, the top one first, as the lint contract has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(each["layers"] for each in contracts["contracts"] if "layers" in each)
    return [[name.strip() for name in row.split("|")] for row in layers]


def inside(package: str) -> str:
    """Return what a package holds: its packages, then some of its files."""
    folder = PACKAGE / package
    packages = sorted(f"{path.parent.name}/" for path in folder.glob("*/__init__.py"))
    files = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return ", ".join([*packages, *files])


def main() -> None:
    """Draw a row of boxes for each layer."""
    found = rows()
    with drawing():
        figure = Figure(figsize=(9.2, 8.4), layout="constrained")
        ax = figure.subplots()
        for number, names in enumerate(found):
            width = (WIDTH - GAP * (len(names) - 1)) / len(names)
            for place, name in enumerate(names):
                box(ax, place * (width + GAP), -number * (HEIGHT + GAP), width, name)
            if number:
                top = -number * (HEIGHT + GAP) + HEIGHT
                ax.annotate(
                    "",
                    (WIDTH / 2, top),
                    (WIDTH / 2, top + GAP),
                    arrowprops={"arrowstyle": "-|>", "color": SOFT},
                )
        ax.set_xlim(-0.05, WIDTH + 0.05)
        ax.set_ylim(-(len(found) - 1) * (HEIGHT + GAP) - 0.05, HEIGHT + 0.05)
        ax.axis("off")
        write_whole(PICTURE, png(figure))


def box(ax: Any, x: float, y: float, width: float, name: str) -> None:
    """Draw one package: its name, what it is for, and what it holds."""
    patch = FancyBboxPatch(
        (x, y), width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", fc="white", ec=FAINT
    )
    ax.add_patch(patch)
    ax.text(x + 0.15, y + 0.68, name, color=INK, fontsize=11.5, fontweight="bold", va="center")
    lines = wrapped(inside(name), int(width * 16))
    ax.text(x + 0.15, y + 0.28, lines, color=SOFT, fontsize=7.8, va="center")


def wrapped(text: str, characters: int) -> str:
    """Return two lines of text at most; what does not fit is left out at a comma."""
    lines = [""]
    for word in text.split(", "):
        longer = f"{lines[-1]}, {word}" if lines[-1] else word
        if len(longer) <= characters:
            lines[-1] = longer
        elif len(lines) < 2:
            lines[-1] += ","
            lines.append(word)
        else:
            return "\n".join(lines) + ", ..."
    return "\n".join(lines)


if __name__ == "__main__":
    main()
