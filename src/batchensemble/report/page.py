"""``write_report``: results.json, figures, and one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from batchensemble.comparison.files import RESULTS
from batchensemble.comparison.results import Comparison, environment_versions
from batchensemble.comparison.summary import compare_methods, headline, summarise
from batchensemble.comparison.wording import method_phrase
from batchensemble.core.atomic_files import write_whole
from batchensemble.ensembles.methods import METHODS, baseline_among
from batchensemble.report.embedded import finite, json_block, policy
from batchensemble.report.plots import draw_all, save_all
from batchensemble.report.sections import charts, members, tables
from batchensemble.report.sections.calibrated import calibration_table
from batchensemble.report.sections.classes import class_table
from batchensemble.report.sections.conformal import interval_table
from batchensemble.report.sections.figures import shown_figures
from batchensemble.report.sections.printed import notebook_errors, printed_losses
from batchensemble.report.subject import Subject, subject_from_comparison
from batchensemble.report.verdict import member_check, members_of, verdict

# Colours of the symbols of methods: on light pages, on dark ones, and on paper.
COLOURS = """
{light}
@media (prefers-color-scheme: dark) {{ {dark} }}
@media print {{ {light} }}
"""


def write_report(comparison: Comparison, folder: str | Path) -> Path:
    """Write ``results.json``, ``figures/`` and ``report.html``, and return the page's path.

    Args:
        comparison: a comparison, from :func:`batchensemble.comparison.compare.compare`.
        folder: folder to write to; it is created if it is missing, and files of these names are
            replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = json.dumps(finite(comparison.to_dict()), indent=2, allow_nan=False)
    write_whole(folder / RESULTS, f"{results}\n".encode())
    return write_page(subject_from_comparison(comparison), folder)


def write_page(subject: Subject, folder: Path) -> Path:
    """Write ``figures/`` and ``report.html``, and return the page's path.

    Args:
        subject: the comparison or the trained model to report.
        folder: folder to write to; it is created if it is missing.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw_all(subject.comparison)
    save_all(figures, folder / "figures")
    images = {name: (folder / "figures" / f"{name}.svg").read_bytes() for name in figures}
    # A file name that is no valid text may be part of the page.
    page = render(subject, figures, images).encode(errors="replace")
    write_whole(folder / "report.html", page)
    return folder / "report.html"


def write_single_page(subject: Subject, path: Path) -> Path:
    """Write the page alone, with its figures in it; returns its path.

    Args:
        subject: the comparison or the trained model to report.
        path: of the page.

    Raises:
        OSError: the file cannot be written.
    """
    figures = draw_all(subject.comparison)
    with TemporaryDirectory() as folder:
        save_all(figures, Path(folder))
        images = {name: (Path(folder) / f"{name}.svg").read_bytes() for name in figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, render(subject, figures, images).encode(errors="replace"))
    return path


def render(subject: Subject, figures: Mapping[str, Figure], images: Mapping[str, bytes]) -> str:
    """Return the page as HTML; everything that comes from the data is escaped.

    Args:
        subject: the comparison or the trained model to report.
        figures: the figures by name, from :func:`batchensemble.report.plots.draw_all`.
        images: the same figures as SVG files, which are embedded in the page.
    """
    environment = _environment()
    style = _text(environment, "page.css") + _colours()
    script = _text(environment, "page.js")
    return environment.get_template("page.html.j2").render(
        subject=subject,
        comparison=subject.comparison,
        data=subject.comparison.data,
        symbols={name: method.style.symbol for name, method in METHODS.items()},
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
        results=json_block(subject.results),
        versions=environment_versions(),
        shown=shown_figures(subject.comparison, figures, images),
        **_sections(subject.comparison),
    )


def _sections(comparison: Comparison) -> dict[str, Any]:
    """Return the content of the sections; only some without a finished run."""
    differences = compare_methods(comparison)
    rows = summarise(comparison, differences)
    found = verdict(comparison, rows, differences)
    printed = {
        "printed": printed_losses(comparison),
        "notebook_errors": notebook_errors(comparison),
    }
    if not rows:
        return {"rows": rows, "verdict": found, **printed}
    reference = baseline_among(comparison.methods) or found.method or ""
    risks, numbers = charts.risks(comparison), comparison.data.task == "regression"
    return {
        "rows": rows,
        "verdict": found,
        "several_seeds": len({run.seed for run in comparison.runs}) > 1,
        "quality": tables.quality_table(comparison, rows),
        "differences": tables.difference_table(comparison, rows, differences, reference),
        "reference": method_phrase(reference),
        "ranked_by": headline(comparison),
        "forest": charts.forest(headline(comparison), rows, differences, reference),
        "classes": class_table(comparison),
        "calibration": calibration_table(comparison),
        "uncertainty": tables.uncertainty_table(comparison),
        "risks": risks,
        "risk_numbers": json_block(risks.numbers),
        "thresholds": tables.threshold_table(comparison),
        "guarantees": interval_table(comparison) if numbers else tables.guarantee_table(comparison),
        "members": members.member_table(comparison),
        "diversity": members.diversity_table(comparison),
        "gain_shares": members.gain_shares(comparison),
        "checks": [
            (row, member_check(comparison, row)) for row in rows if members_of(comparison, row) > 1
        ],
        "costs": tables.cost_table(comparison, rows),
        "runs": tables.run_table(comparison),
        **printed,
    }


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("batchensemble.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _colours() -> str:
    """Return the style of the methods' symbols."""
    styles = {name: method.style for name, method in METHODS.items()}
    return COLOURS.format(
        light=" ".join(f".{name} {{ color: {each.on_light}; }}" for name, each in styles.items()),
        dark=" ".join(f".{name} {{ color: {each.on_dark}; }}" for name, each in styles.items()),
    )


def _text(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
