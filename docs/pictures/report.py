"""Takes the pictures of docs/report.md: the page of a comparison in Debian's Chromium.

python docs/pictures/report.py [FOLDER]

FOLDER is that of a comparison; by default runs/moons, which ``make demo`` makes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
IMAGES = Path(__file__).parent.parent / "images"
# Name, width of the window, colours, what is shown: the first screen, or a section.
PICTURES = (
    ("report-verdict", 1400, "light", None),
    ("report-verdict-narrow", 360, "dark", None),
    ("report-quality", 1400, "dark", "#quality"),
    ("report-decisions", 1400, "light", "#figure-risks"),
    ("report-decisions-narrow", 360, "light", "#figure-risks"),
)


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/moons"))
    page = parser.parse_args().folder.resolve() / "report.html"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for picture in PICTURES:
            print(take(browser, page, *picture))
        browser.close()


def take(browser: Any, page: Path, name: str, width: int, colours: str, part: str | None) -> Path:
    """Take one picture and return where it is."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=colours)
    tab = context.new_page()
    tab.goto(page.as_uri())
    path = IMAGES / f"{name}.png"
    if part is None:
        tab.screenshot(path=path)
    else:
        tab.locator(part).screenshot(path=path)
    context.close()
    return path


if __name__ == "__main__":
    main()
