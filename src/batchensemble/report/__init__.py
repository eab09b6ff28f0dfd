"""Reports of a comparison or a trained model, as one self-contained HTML page or as Markdown."""

from __future__ import annotations

from batchensemble.core.deprecation import moved_to
from batchensemble.report.embedded import finite
from batchensemble.report.markdown import markdown
from batchensemble.report.page import render, write_page, write_report
from batchensemble.report.subject import Subject, command, subject_from_comparison

of_comparison = moved_to(
    "batchensemble.report.subject_from_comparison",
    old="batchensemble.report.of_comparison",
    until="0.3",
)

__all__ = [
    "Subject",
    "command",
    "finite",
    "markdown",
    "render",
    "subject_from_comparison",
    "write_page",
    "write_report",
]
