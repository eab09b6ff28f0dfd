"""Figures as SVG and PNG files, with the same bytes each time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from batchensemble.core.atomic_files import write_whole
from batchensemble.report.plots.style import drawing

PNG_DPI = 160
RASTER_DPI = 150  # of the images and points inside an SVG file


def save_all(figures: Mapping[str, Figure], folder: str | Path) -> None:
    """Write each figure as ``NAME.svg`` and ``NAME.png``; the same figure gives the same bytes.

    Args:
        figures: figures by name, from :func:`batchensemble.report.plots.draw_all`.
        folder: folder to write to; it is created if it is missing.

    Raises:
        OSError: a file cannot be written; no file is left incomplete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_whole(folder / f"{name}.svg", svg(figure))
        write_whole(folder / f"{name}.png", png(figure))


def save_as(figure: Figure, path: str | Path, description: str) -> None:
    """Write a figure as SVG or PNG, by the ending of the file's name, atomically.

    Args:
        figure: any figure.
        path: file name that ends in ``.svg`` or ``.png``; its folder is created if it is missing.
        description: description of the figure for those who cannot see it.

    Raises:
        ValueError: the name has another ending.
        OSError: the file cannot be written.
    """
    path = Path(path)
    kinds = {".svg": svg, ".png": png}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"the name of a figure must end in .svg or .png, got {path.name!r}")
    content = kinds[path.suffix.lower()](figure, description)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; give another file") from error
    write_whole(path, content)


def svg(figure: Figure, description: str | None = None) -> bytes:
    """Return a figure as an SVG file without a date; screen readers read its description."""
    described = {} if description is None else {"Title": description}
    return _rendered(figure, "svg", RASTER_DPI, {"Date": None, "Creator": None, **described})


def png(figure: Figure, description: str | None = None) -> bytes:
    """Return a figure as a PNG file without the name of the program that wrote it."""
    described = {} if description is None else {"Description": description}
    return _rendered(figure, "png", PNG_DPI, {"Software": None, **described})


def _rendered(figure: Figure, kind: str, dpi: int, metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    with drawing(), warnings.catch_warnings():
        # A box replaces a letter that the font lacks; there is nothing to do about it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
