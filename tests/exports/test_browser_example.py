"""The page of examples/browser in a real browser: what it shows is what the file predicts."""

import functools
import http.server
import runpy
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from browsing import chromium, faults, opened

PAGE = Path(__file__).parents[2] / "examples" / "browser"
LEFT, RIGHT, BOTTOM, TOP = -2.6, 3.6, -2.2, 2.7  # of the map


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Train a small model, and serve it with the page."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    if not (PAGE / "node_modules").exists():
        pytest.skip("no onnxruntime-web; scripts/install-browser.sh installs it where npm is")
    folder = tmp_path_factory.mktemp("page")
    for name in ("index.html", "page.css", "page.js"):
        shutil.copy(PAGE / name, folder)
    (folder / "node_modules").symlink_to(PAGE / "node_modules")
    runpy.run_path(str(PAGE / "make_model.py"))["main"](folder, epochs=20)
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that logs nothing."""

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def ready(page):
    page.wait_for_function("document.getElementById('total').textContent != '-'")


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_and_says_nothing(browser, address, width):
    _, url = address
    with opened(browser, url + "index.html", width=width) as (page, said, asked):
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert said == []
        assert {each.startswith((url, "data:")) for each in asked} == {True}
        assert faults(page) == []


def test_under_the_mouse_is_what_the_file_predicts(browser, address):
    import onnxruntime

    folder, url = address
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    names = [each.name for each in session.get_outputs()]
    answered = set()
    with opened(browser, url + "index.html") as (page, _, _):
        ready(page)
        box = page.locator("#map").bounding_box()
        for x, y in [(0.0, 1.0), (1.0, -0.5), (0.4, 0.3), (2.6, 2.4), (-2.4, 0.3)]:
            left = round(box["x"] + (x - LEFT) / (RIGHT - LEFT) * box["width"])
            top = round(box["y"] + (TOP - y) / (TOP - BOTTOM) * box["height"])
            page.mouse.move(left, top)
            at = np.float32(
                [
                    [
                        LEFT + (left - box["x"]) / box["width"] * (RIGHT - LEFT),
                        TOP - (top - box["y"]) / box["height"] * (TOP - BOTTOM),
                    ]
                ]
            )
            found = dict(zip(names, session.run(None, {"input": at}), strict=True))
            page.wait_for_function(
                "x => document.getElementById('point').textContent.startsWith(x)",
                arg=f"{at[0, 0]:.2f},",
            )
            for name in ("total", "aleatoric", "epistemic"):
                assert float(page.inner_text(f"#{name}")) == pytest.approx(
                    found[name][0], abs=0.002
                )
            mean = found["mean"][0]
            assert float(page.inner_text("#first")) == pytest.approx(mean[0], abs=0.002)
            name = ("upper moon", "lower moon")[int(mean.argmax())]
            said = page.inner_text("#answer")
            assert said.startswith(name if found["answer"][0] else "No answer")
            answered.add(bool(found["answer"][0]))
    assert answered == {True, False}  # both kinds of points were tried


def test_the_keyboard_moves_the_point_and_the_choices_the_colours(browser, address):
    _, url = address
    picture = "document.getElementById('map').toDataURL()"
    with opened(browser, url + "index.html") as (page, _, _):
        ready(page)
        page.focus("#map")
        before = page.inner_text("#point")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("x => document.getElementById('point').textContent != x", arg=before)
        assert page.inner_text("#point") == "0.55, 0.25"
        pictures = set()
        for name in ("mean", "total", "aleatoric", "epistemic"):
            page.check(f"[value={name}]")
            pictures.add(page.evaluate(picture))
        assert len(pictures) == 4


@pytest.mark.parametrize("missing", ["model.onnx", "node_modules"])
def test_a_page_that_lacks_something_says_what_to_do(browser, address, missing):
    folder, url = address
    (folder / missing).rename(folder / "away")
    try:
        with opened(browser, url + "index.html") as (page, _, _):
            page.wait_for_function(
                "!document.getElementById('answer').textContent.startsWith('Loading')"
            )
            said = page.inner_text("#answer")
            assert "there is no " + missing.replace("node_modules", "onnxruntime-web") in said
            assert "npm install, make_model.py and a server" in said
    finally:
        (folder / "away").rename(folder / missing)
