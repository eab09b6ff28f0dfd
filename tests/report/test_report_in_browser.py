"""The report in a real browser: it asks for nothing, runs nothing of the data, fits and works."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from batchensemble.comparison.compare import Settings, compare
from batchensemble.data.datasets import Data, load_dataset
from batchensemble.report import write_report
from browsing import chromium, faults, opened

NAMES = ("<script>said()</script>", '"><img src=x onerror=said()>')
CLASSES = ("</script><script>said()</script>", "javascript:said()", "<svg/onload=said()>")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Write the page of a table whose every name wants to run."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = (rng.normal(size=(90, 2)) + 2 * np.eye(3, 2)[y]).astype(np.float32)
    data = Data(f"{CLASSES[0]}.csv", (X, y), (X, y), NAMES, CLASSES, True, target=NAMES[1])
    settings = Settings(("single", "deep"), members=2, epochs=2, hidden=(4,), seeds=2)
    comparison = compare(data, settings, progress=False)
    comparison = replace(
        comparison, failures=[CLASSES[0]], explanation=NAMES[1], printed={NAMES[1]: ([0.5], [0.4])}
    )
    return write_report(comparison, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_it_fits_says_nothing_and_asks_for_nothing(browser, report, width):
    with opened(browser, report, width=width) as (page, said, asked):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").inner_text() == f"{CLASSES[0]}.csv"
        assert said == []
        assert asked == [report.as_uri()]
        assert page.evaluate("document.querySelectorAll('img:not([src^=data])').length") == 0


@pytest.mark.parametrize("width", [360, 1400])
def test_figures_of_one_method_are_about_as_large_as_they_were_drawn(browser, tmp_path, width):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2
    data = Data("three", (X, y), (X, y), ("a", "b", "c"), ("no", "yes"), True)
    settings = Settings(("batch",), members=2, epochs=1, hidden=(4,))
    path = write_report(compare(data, settings, progress=False), tmp_path)
    with opened(browser, path, width=width) as (page, _, _):
        pictures = page.locator(".picture img").all()
        assert len(pictures) > 4
        for picture in pictures:
            drawn = int(picture.get_attribute("width"))
            assert 0.6 < picture.bounding_box()["width"] / drawn < 1.3


def test_the_slider_works_with_the_keyboard(browser, report):
    with opened(browser, report) as (page, said, _):
        output = page.locator("output")
        page.locator("#threshold").focus()
        first = output.inner_text()
        assert "Confidence of at least 0.90:" in first
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
        assert "Confidence of at least 0.87:" in output.inner_text()
        page.keyboard.press("Home")
        assert "Deep ensemble: coverage 100.0%" in output.inner_text()
        assert (
            page.locator("#threshold").get_attribute("aria-valuetext")
            == "Confidence of at least 0.00"
        )
        dot = page.locator("circle.chosen[data-method=deep]")
        assert dot.get_attribute("visibility") == "visible"
        assert said == []


def test_without_script_nothing_is_missing(browser, report):
    with opened(browser, report, java_script_enabled=False) as (page, said, _):
        assert not page.locator("#threshold").is_visible()
        rows = page.locator("table", has_text="at least this confidence").locator("tbody tr")
        assert rows.count() > 5
        assert page.locator("#download").get_attribute("href") == "results.json"
        assert said == []


def test_a_click_on_a_heading_sorts_and_says_so(browser, report):
    with opened(browser, report) as (page, said, _):
        table = page.locator("table", has_text="Cost of each method")
        heading = table.get_by_role("columnheader", name="Parameters", exact=True)
        orders = []
        for _ in range(2):
            heading.get_by_role("button").press("Enter")
            names = table.locator("tbody tr th").all_inner_texts()
            orders.append((heading.get_attribute("aria-sort"), names))
        (up, one), (down, other) = orders
        assert (up, down) == ("ascending", "descending")
        assert one == other[::-1]
        assert "Single network" in one[0]
        assert said == []


def test_the_results_can_be_saved_from_the_page(browser, report, tmp_path):
    with opened(browser, report) as (page, said, _):
        with page.expect_download() as waiting:
            page.locator("#download").click()
        waiting.value.save_as(tmp_path / "saved.json")
        beside = json.loads((report.parent / "results.json").read_text())
        assert json.loads((tmp_path / "saved.json").read_text()) == beside
        assert waiting.value.suggested_filename == "results.json"
        assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, report, scheme):
    with opened(browser, report, color_scheme=scheme) as (page, _, _):
        assert faults(page) == []


def test_it_prints(browser, report):
    with opened(browser, report) as (page, said, _):
        printed = page.pdf(format="A4")
        assert printed.startswith(b"%PDF")
        assert int(re.search(rb"/Count (\d+)", printed).group(1)) >= 2
        assert said == []


def test_the_page_is_small(report):
    assert report.stat().st_size < 3_000_000


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    settings = Settings(("single", "batch"), members=2, epochs=2, hidden=(4,))
    comparison = compare(load_dataset("cubic"), settings, progress=False)
    return write_report(comparison, tmp_path_factory.mktemp("numbers"))


@pytest.mark.parametrize("width", [360, 1400])
def test_decisions_about_numbers_fit_and_follow_the_slider(browser, numbers, width):
    with opened(browser, numbers, width=width) as (page, said, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        output = page.locator("output")
        page.locator("#threshold").focus()
        assert "Coverage 90%:" in output.inner_text()
        most = deviation_in(output)
        page.keyboard.press("ArrowLeft")
        assert "Coverage 89%:" in output.inner_text()
        page.keyboard.press("Home")
        assert "Coverage 1%:" in output.inner_text()
        assert deviation_in(output) < most
        rows = page.locator("table", has_text="Conformal intervals").locator("tbody tr")
        assert rows.count() == 3
        assert faults(page) == []
        assert said == []


def deviation_in(output):
    return float(re.search(r"deviation up to ([\d.e+-]+),", output.inner_text()).group(1))
