"""Reports of a comparison or a trained model, as one self-contained HTML page or as Markdown."""

from __future__ import annotations

from batchensemble.report.embedded import finite
from batchensemble.report.markdown import markdown
from batchensemble.report.page import render, write_page, write_report
from batchensemble.report.subject import Subject, command, subject_from_comparison

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
