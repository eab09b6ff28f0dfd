"""A page in Debian's Chromium, with all that it says and asks for written down."""

from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parent.parent / "vendor" / "axe-core" / "axe.min.js"


@contextmanager
def chromium():
    """Start the browser, or skip the test with the reason why not."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}; scripts/install-browser.sh installs it on Debian")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, *, width=1400, **options):
    """Open a file or an address; yield the page, what its console said, and what it asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path if isinstance(path, str) else path.as_uri())
    yield page, said, asked
    context.close()


def faults(page):
    """Return what axe-core finds that is serious or critical, as lines to read."""
    # Through the debugger, since the policy of the page lets no other script in.
    page.evaluate(AXE.read_text() + "; null")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [
        f"{each['id']}: {node['html'][:120]}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]
