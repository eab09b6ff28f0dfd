"""The report: nothing is missing, nothing from the data runs, nothing is fetched."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from batchensemble.comparison.compare import Comparison, Run, Settings, compare
from batchensemble.comparison.summary import (
    CLASSIFICATION,
    COST,
    compare_methods,
    format_number,
    summarise,
    value,
)
from batchensemble.data.datasets import Data
from batchensemble.metrics import Scores, score
from batchensemble.predictions.predict import Prediction
from batchensemble.report import (
    command,
    finite,
    markdown,
    render,
    subject_from_comparison,
    write_report,
)
from batchensemble.report.embedded import json_block
from batchensemble.report.plots import draw_all
from batchensemble.report.sections.abstaining import abstaining
from batchensemble.report.sections.calibrated import calibration_table, error_by_chance
from batchensemble.report.sections.members import diversity_table, gain_shares
from batchensemble.report.sections.tables import guarantee_table
from batchensemble.report.verdict import verdict

HOSTILE = "<script>alert(1)</script>"


def toy(features=2, classes=2, name="toy", **names):
    rng = np.random.default_rng(0)
    y = np.arange(60) % classes
    X = (rng.normal(size=(60, features)) + 2 * np.eye(classes, features)[y]).astype(np.float32)
    feature_names = names.get("feature_names", tuple(f"x{i}" for i in range(features)))
    class_names = names.get("class_names", tuple("abcdef"[:classes]))
    return Data(name, (X, y), (X, y), feature_names, class_names, True)


def compared(data, **settings):
    quick = {"members": 2, "epochs": 1, "hidden": (4,), "batch_size": 30, **settings}
    return compare(data, Settings(**quick), progress=False)


@pytest.fixture(scope="module")
def comparison():
    return compared(toy(features=1, classes=3), seeds=2)


@pytest.fixture(scope="module")
def written(comparison, tmp_path_factory):
    return write_report(comparison, tmp_path_factory.mktemp("runs") / "toy")


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open, self.attributes = [], "", [], []
        self.scripts, self.styles = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        if tag not in {"meta", "img", "br", "input"}:
            self.open.append(tag)
        if tag in {"script", "style"}:
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " if tag in {"td", "th"} else ""

    def handle_data(self, text):
        inside = self.open[-1] if self.open else ""
        if inside in {"script", "style"}:
            (self.scripts if inside == "script" else self.styles)[-1] += text
        else:
            self.text += text


def page_of(comparison):
    """Return the page without its figures, which take the time."""
    return Page(render(subject_from_comparison(comparison), {}, {}))


def words(page):
    return " ".join(page.text.split())


def test_all_files_are_there_and_nothing_else(written, comparison):
    names = sorted(path.name for path in written.parent.iterdir())
    assert names == ["figures", "report.html", "results.json"]
    figures = {path.name for path in (written.parent / "figures").iterdir()}
    assert figures == {f"{name}.{kind}" for name in draw_all(comparison) for kind in ("svg", "png")}


def test_results_hold_the_whole_comparison(written, comparison):
    results = json.loads((written.parent / "results.json").read_text())
    assert results == json.loads(json.dumps(comparison.to_dict()))


def test_the_page_is_whole_and_asks_for_nothing(written):
    text = written.read_text()
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!doctype html>")
    assert "://" not in text
    assert "link" not in page.tags
    assert not re.search(r"url\(|@import", text)
    for tag, attributes in page.attributes:
        assert tag == "img" or "src" not in attributes
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert attributes["href"].startswith("#") or attributes["href"] == "results.json"


def test_the_policy_lets_only_this_style_and_script_be(written):
    page = Page(written.read_text())
    kinds = [each.get("type") for tag, each in page.attributes if tag == "script"]
    assert kinds == ["application/json", "application/json", None]
    [policy] = [each["content"] for _, each in page.attributes if "http-equiv" in each]
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert "unsafe" not in policy
    for rule, [text] in (("style-src", page.styles), ("script-src", page.scripts[-1:])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[rule] == f"'sha256-{digest}'"


def test_the_results_are_inside_the_page_and_no_text_ends_them(written, comparison):
    page = Page(written.read_text())
    assert json.loads(page.scripts[1]) == json.loads(json.dumps(comparison.to_dict()))
    odd = {"a": "</script><!--<script>&", "b": "\u2028\udcff"}
    assert not re.search("[<>&\u2028]", json_block(odd))
    assert json.loads(json_block(odd)) == odd


def test_links_lead_to_a_place_and_labels_to_a_text(written):
    attributes = [each for _, each in Page(written.read_text()).attributes]
    identifiers = [each["id"] for each in attributes if "id" in each]
    assert len(identifiers) == len(set(identifiers))
    wanted = {each["href"][1:] for each in attributes if each.get("href", "").startswith("#")}
    wanted |= {each["aria-labelledby"] for each in attributes if "aria-labelledby" in each}
    assert wanted <= set(identifiers)


def test_every_figure_is_inside_with_a_text_in_its_place(written, comparison):
    images = [each for tag, each in Page(written.read_text()).attributes if tag == "img"]
    assert len(images) == len(draw_all(comparison))
    for image in images:
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        ElementTree.fromstring(base64.b64decode(content))
        assert len(image["alt"]) > 60
        assert "Deep ensemble" in image["alt"]
        assert int(image["width"]) > int(image["height"]) > 0


def test_headings_go_down_one_step_at_a_time(written):
    levels = [int(tag[1]) for tag in Page(written.read_text()).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_header_cells_say_what_they_head(written):
    heads = [each for tag, each in Page(written.read_text()).attributes if tag == "th"]
    assert len(heads) > 30
    assert all(each.get("scope") in {"row", "col", "colgroup"} for each in heads)


def test_every_score_and_cost_is_on_the_page(written, comparison):
    said = words(Page(written.read_text()))
    for row in summarise(comparison):
        assert row.name in said
        for column in (*CLASSIFICATION, *COST):
            assert row.cells[column.key].text in said.replace("≈ ", "")
    for run in comparison.runs:
        for accuracy in run.scores["member_accuracies"]:
            assert f"{accuracy:.4f}" in said
        for column in CLASSIFICATION:
            assert format_number(value(run, column), column) in said


def test_marks_are_said_in_words_too(comparison):
    cells = [cell for row in summarise(comparison) for cell in row.cells.values()]
    said = words(page_of(comparison))
    assert said.count("(best)") == sum(cell.best for cell in cells) > 0
    level = sum(cell.tied for cell in cells)
    assert said.count("(not significantly different from the best)") == level > 0
    assert "(best)" not in words(page_of(replace(comparison, runs=comparison.of("deep"))))


def test_the_page_says_that_calls_save_no_multiply_adds(comparison):
    assert (
        "saves the overhead of calls, and shared weights save memory, but not multiply-adds"
        in words(page_of(comparison))
    )


def test_names_from_the_data_never_run(tmp_path):
    data = toy(name=HOSTILE, feature_names=(HOSTILE, '"><img src=x onerror=alert(1)>'),
               class_names=(HOSTILE, "'b'"))  # fmt: skip
    hostile = compared(data, methods=("batch",))
    hostile.recipe, hostile.explanation = HOSTILE, HOSTILE
    hostile.failures.append(HOSTILE)
    hostile.printed[HOSTILE] = ([0.5], [0.25])
    text = write_report(hostile, tmp_path).read_text()
    page = Page(text)
    assert text.count("<script") == 3
    assert not any("alert(1)" in script for script in page.scripts[-1:])
    assert page.text.count(HOSTILE) >= 6
    assert not any("onerror" in attributes for _, attributes in page.attributes)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["data"]["name"] == HOSTILE


def test_a_file_name_that_is_no_text_still_gives_a_page(tmp_path):
    odd = compared(toy(features=1, name="\udcff.csv"), methods=("single",))
    assert ".csv" in write_report(odd, tmp_path).read_text(encoding="utf-8")


def test_interruption_and_failures_are_said(comparison):
    broken = replace(comparison, interrupted=True, failures=["deep, seed 1: the loss is NaN"])
    said = words(page_of(broken))
    assert "Interrupted." in said
    assert "deep, seed 1: the loss is NaN" in said
    assert "Interrupted." not in words(page_of(comparison))
    assert "failed" not in words(page_of(comparison))


def test_no_finished_run_still_gives_a_page(comparison, tmp_path):
    text = write_report(replace(comparison, runs=[], interrupted=True), tmp_path).read_text()
    assert "No training finished" in text


def test_a_recipe_shows_its_explanation_and_both_losses(comparison):
    recipe = replace(
        comparison,
        recipe="notebook",
        explanation="It is because of the logits.",
        printed={"member 1": ([0.2620, 0.0527], [0.26203, 0.0531]), "member 2": ([], [0.1])},
    )
    said = words(page_of(recipe))
    assert "It is because of the logits." in said
    assert "1 0.2620 0.2620 0 - 0.1000 -" in said
    assert "2 0.0527 0.0531 +0.0004 - - -" in said
    assert "batchensemble compare --recipe notebook" in said
    assert "member 1" not in words(page_of(comparison))


def test_seeds_have_a_table_of_their_own_only_if_there_are_several(comparison):
    assert "Individual runs" in page_of(comparison).text
    once = replace(comparison, runs=[run for run in comparison.runs if run.seed == 0])
    assert "Individual runs" not in page_of(once).text
    assert "One seed." in page_of(once).text


def test_numbers_that_json_lacks_become_null(comparison, tmp_path):
    run = comparison.runs[0]
    history = replace(run.history, losses=[math.nan], validation_nll=[math.inf])
    write_report(replace(comparison, runs=[replace(run, history=history)]), tmp_path)
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["runs"][0]["history"]["losses"] == [None]
    assert finite((1, -math.inf, "NaN")) == [1, None, "NaN"]


def test_a_place_that_cannot_be_written_is_an_os_error(comparison, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_report(comparison, tmp_path / "file" / "out")
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(comparison, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.part"))


def test_the_command_makes_the_comparison_again(comparison):
    moons = replace(comparison.data, name="moons")
    settings = Settings(members=4, epochs=2, lr=0.01, hidden=(64, 32), seeds=3)
    assert command(Comparison(settings, moons, None)) == (
        "batchensemble compare --data moons --methods single,deep,batch,mimo --members 4 "
        "--epochs 2 --batch-size 128 --lr 0.01 --hidden 64,32 --seeds 3"
    )
    slow = replace(settings, cooldown=0.5)
    assert " --cooldown 0.5 " in command(Comparison(slow, moons, None))
    table = replace(comparison.data, name="my plants.csv", target="kind")
    assert "--data 'my plants.csv' --target kind" in command(Comparison(settings, table, None))


def predicted(comparison, method, right):
    """Return a run that gives each true class of two the probabilities ``right``."""
    labels = comparison.data.held_out[1]
    probs = np.empty((len(labels), 1, 2))
    probs[np.arange(len(labels)), 0, labels] = right
    probs[np.arange(len(labels)), 0, 1 - labels] = 1 - np.asarray(right)
    prediction = Prediction(probs)
    run = comparison.of(method)[0]
    return replace(run, prediction=prediction, scores=score(prediction, labels), plane=None)


def judged(comparison, **right):
    runs: list[Run] = [predicted(comparison, method, each) for method, each in right.items()]
    both = replace(comparison, runs=runs)
    differences = compare_methods(both)
    return verdict(both, summarise(both, differences), differences)


@pytest.fixture(scope="module")
def binary():
    return compared(toy(), methods=("single", "deep"))


def test_the_verdict_names_what_is_significantly_best(binary):
    rng = np.random.default_rng(0)
    clear = judged(binary, single=rng.uniform(0.4, 0.6, 60), deep=np.full(60, 0.9))
    assert clear.headline == (
        "The deep ensemble has the lowest NLL, 0.1054 nats on 60 held-out examples, significantly "
        "lower than every other method (95% intervals)."
    )
    better, cost, *_ = clear.answers
    assert better.title == "Difference from the single network"
    assert re.match(r"NLL .0\.\d{4} nats, 95% interval .0\.\d{4} to .0\.\d{4}\.", better.text)
    assert better.text.endswith("The difference is significant.")
    assert "2.00 times the parameters" in cost.text


def test_without_a_significant_difference_the_cheapest_method_is_named(binary):
    noise = np.random.default_rng(0).uniform(0.4, 0.8, 60)
    close = judged(binary, single=noise[::-1], deep=noise + 0.001)
    assert re.search(r"; the \w+ \w+ \(0\.\d{4}\) is not significantly different\.", close.headline)
    assert close.headline.endswith("the single network needs the least arithmetic per prediction.")
    assert close.method == "single"
    assert close.answers[0].short == "Not significant"


def test_a_calibration_error_is_held_against_that_of_chance(binary):
    honest = np.repeat([0.7, 0.3], [42, 18])  # at 70% it is right in 70% of the examples
    [answer] = [each for each in judged(binary, deep=honest).answers if "Calib" in each.title]
    assert answer.short == "No miscalibration detected"
    wrong = judged(binary, deep=np.full(60, 0.7))
    [answer] = [each for each in wrong.answers if "Calib" in each.title]
    assert answer.short == "Miscalibration detected"


def test_chance_makes_the_calibration_error_that_counting_makes():
    sure = Prediction(np.full((400, 1, 2), 0.5))
    rights = np.random.default_rng(1).random((2000, 400)) < 0.5
    expected = np.quantile(np.abs(rights.mean(1) - 0.5), 0.95)
    assert error_by_chance(sure) == pytest.approx(expected, rel=0.1)


def test_the_table_of_calibration_has_the_errors_of_the_scores(comparison):
    table = calibration_table(comparison)
    for line in table.lines:
        errors = [run.scores["ece"] for run in comparison.of(line.method)]
        assert line.entries[0].value == pytest.approx(np.mean(errors))
        assert line.entries[2].value <= line.entries[0].value <= line.entries[3].value


def test_thresholds_that_hold_answer_the_more_the_more_errors_are_allowed(binary):
    sure = np.concatenate([np.full(50, 0.99), np.full(10, 0.4)])
    runs = [predicted(binary, "single", sure)]
    shares = [line.entries[0].value for line in guarantee_table(replace(binary, runs=runs)).lines]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0  # 60 examples cannot promise errors of half a percent


def told(comparison, deep, batch, single=0.6):
    """Return the comparison with true classes of these probabilities, by each method's members."""
    truth = {"single": [single], "deep": deep, "batch": batch}
    runs = []
    for method, probs in truth.items():
        run = replace(predicted(comparison, "single", np.full(60, 0.5)), method=method)
        right = np.tile(np.array(probs), (60, 1)) - np.arange(60)[:, None] / 1000
        members = np.stack([right, 1 - right], -1)
        members = np.where(comparison.data.held_out[1][:, None, None] == 0, members, 1 - members)
        runs.append(replace(run, prediction=Prediction(members)))
    settings = replace(comparison.settings, methods=tuple(truth))
    return replace(comparison, settings=settings, runs=runs)


def test_the_share_of_the_gain_that_is_kept_is_in_the_table(binary):
    found = gain_shares(told(binary, deep=[0.8, 0.8], batch=[0.7, 0.7]))
    assert [head.title for head in found.table.heads] == ["Gain in NLL"]
    [line] = found.table.lines
    share = line.entries[0].value
    assert share == pytest.approx(math.log(0.6705 / 0.5705) / math.log(0.7705 / 0.5705), abs=0.01)
    assert line.entries[0].text == f"{share:.0%}"
    low, high = (float(end.rstrip("%")) for end in line.entries[0].detail.split(" to "))
    assert low <= round(100 * share) <= high
    # All are right and none of the members differs, so there is nothing else to gain.
    assert [reason.partition(":")[0] for reason in found.reasons] == [
        "Gain in accuracy",
        "Gain in error detection by epistemic uncertainty (AUROC)",
    ]
    page = words(page_of(told(binary, deep=[0.8, 0.8], batch=[0.7, 0.7])))
    assert "Share of the deep ensemble's gain" in page
    assert (
        "Gain in accuracy: the deep ensemble's gain over one network, 0 [0, 0] in error rate"
        in page
    )


def test_where_there_is_nothing_to_share_a_sentence_says_so(binary):
    found = gain_shares(told(binary, deep=[0.6, 0.6], batch=[0.7, 0.7]))
    assert found.table is None
    assert len(found.reasons) == 3
    for left_out in ("single", "deep", "batch"):
        all_three = told(binary, [0.8, 0.8], [0.7, 0.7])
        runs = [run for run in all_three.runs if run.method != left_out]
        assert gain_shares(replace(all_three, runs=runs)) is None


def test_members_that_were_trained_independently_need_no_test(binary):
    alone = replace(binary, runs=binary.of("deep"))
    [answer] = [each for each in page_verdict(alone).answers if "members" in each.title]
    assert answer.short == "Yes, independent"
    assert "Trained independently" in answer.text
    assert "a deep ensemble would decide" not in words(page_of(alone))


def page_verdict(comparison):
    differences = compare_methods(comparison)
    return verdict(comparison, summarise(comparison, differences), differences)


def test_how_members_differ_is_said_of_each_ensemble_and_no_single_network(binary):
    table = diversity_table(told(binary, deep=[0.8, 0.6], batch=[0.9, 0.4]))
    deep, batch = table.lines
    assert [line.name for line in table.lines] == ["Deep ensemble", "BatchEnsemble"]
    seed, disagreement, kl, q, _, effective = (entry.value for entry in batch.entries)
    assert (seed, disagreement, effective) == (0, 1.0, 1.0)
    assert kl == pytest.approx(binary_kl(0.9, 0.4), abs=0.1)
    assert deep.entries[1].value == 0.0
    assert deep.entries[-1].value == pytest.approx(2)
    assert q is None
    alone = replace(binary, runs=binary.of("single"))
    assert diversity_table(alone) is None


def binary_kl(one, other):
    """Return the mean of both KL divergences of two coins."""
    p, q = np.array([one, 1 - one]), np.array([other, 1 - other])
    return float(((p - q) * np.log(p / q)).sum() / 2)


def test_coverage_and_risk_are_what_counting_gives():
    rng = np.random.default_rng(0)
    one, other = (Prediction(rng.dirichlet(np.ones(3), size=(50, 2))) for _ in range(2))
    labels = rng.integers(3, size=50)
    found = abstaining([one, other], labels)
    for threshold, coverage, risk in zip(found.thresholds, found.coverage, found.risk, strict=True):
        wrong = [
            top != label
            for each in (one, other)
            for probs, top, label in zip(each.probs, each.labels, labels, strict=True)
            if probs.max() >= threshold
        ]
        assert coverage == len(wrong) / 100
        np.testing.assert_allclose(risk, np.mean(wrong) if wrong else np.nan)


def test_markdown_holds_verdict_and_table_and_nothing_of_it_is_html(binary):
    text = markdown(
        subject_from_comparison(replace(binary, data=replace(binary.data, name=HOSTILE + "|*")))
    )
    said, _, code = text.partition("```sh")
    assert "<script" not in said
    assert "batchensemble compare" in code
    assert "| --- | ---: |" in said
    found = verdict(binary, summarise(binary), compare_methods(binary))
    assert f"**{found.headline}**" in text
    for row in summarise(binary):
        assert row.cells["nll"].text in text


def test_members_that_are_worse_alone_are_pointed_out(comparison):
    run = comparison.of("deep")[0]
    scores = {**run.scores, "accuracy": 0.9, "member_accuracies": [0.5, 0.7]}
    odd = replace(comparison, runs=[replace(run, scores=Scores(scores))])
    assert "accuracy 50.00% to 70.00% for single members, 90.00% for the ensemble" in words(
        page_of(odd)
    )
    assert "less accurate" in page_of(odd).text


def test_a_page_of_large_numbers_has_no_powers_of_ten():
    X, _ = toy().train
    y = 50_000 + 12_000 * X[:, 0].astype(float)
    data = Data("houses", (X, y), (X, y), ("x0", "x1"), (), True)
    said = words(page_of(compared(data, methods=("single", "batch"))))
    assert "Aleatoric variance" in said
    assert not re.search(r"\de\+\d", said)
