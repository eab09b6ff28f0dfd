"""Takes the picture of docs/ship.md: the page of examples/browser in Debian's Chromium.

python docs/pictures/browser.py

``npm install --prefix examples/browser`` comes first; the model is trained here.
"""

from __future__ import annotations

import functools
import http.server
import runpy
import threading
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
PICTURE = Path(__file__).parent.parent / "images" / "browser.png"
PAGE = Path(__file__).parents[2] / "examples" / "browser"
POINT = (0.72, 0.38)  # of the map's width and height


def main() -> None:
    """Train the model, serve the page and take the picture."""
    from playwright.sync_api import sync_playwright

    runpy.run_path(str(PAGE / "make_model.py"))["main"]()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=PAGE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("document.getElementById('total').textContent != '-'")
        box = page.locator("#map").bounding_box()
        assert box is not None
        page.mouse.move(
            box["x"] + POINT[0] * box["width"],
            box["y"] + POINT[1] * box["height"],
        )
        page.wait_for_timeout(500)  # until the last answer is shown
        page.screenshot(path=PICTURE)
        browser.close()
    server.shutdown()
    print(PICTURE)


if __name__ == "__main__":
    main()
