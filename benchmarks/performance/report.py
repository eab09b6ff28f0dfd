"""The page of the default comparison: its size, and how long a browser takes to paint it.

python benchmarks/performance/report.py [FOLDER]

FOLDER is that of a comparison; by default runs/moons, which ``make demo`` makes.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console

CHROMIUM = "/usr/bin/chromium"
REPETITIONS = 7
PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
    for (const entry of list.getEntries())
        if (entry.name === "first-contentful-paint") done(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""


def main() -> None:
    """Print the size and the median of the times to first paint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/moons"))
    page = parser.parse_args().folder.resolve() / "report.html"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        seconds = [paint(browser, page) for _ in range(REPETITIONS + 1)][1:]  # the first warms up
        browser.close()
    console = Console()
    console.print(f"size: {page.stat().st_size / 1e6:.2f} MB")
    console.print(
        f"first paint: {statistics.median(seconds):.2f} s, the slowest of {REPETITIONS} "
        f"{max(seconds):.2f} s"
    )


def paint(browser: Any, page: Path) -> float:
    """Return the seconds from the start of loading until there is something to see."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    tab = context.new_page()
    tab.goto(page.as_uri())
    milliseconds: float = tab.evaluate(PAINT)
    context.close()
    return milliseconds / 1000


if __name__ == "__main__":
    main()
