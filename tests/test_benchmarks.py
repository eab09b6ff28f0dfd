"""The benchmarks: they answer for help, and what they write finds its place on the page."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from batchensemble.layers.linear import RankOneLinear

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
NOT_RUN_BY_HAND = {
    *("contenders", "interleaved", "page", "peers_measure", "six_networks"),
    *("worth_data", "worth_page", "worth_runs", "worth_statistics"),
}
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_RUN_BY_HAND)

# All in one process, which imports torch once.
HELP = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, sys.argv[1])
found = {}
for name in sys.argv[2:]:
    sys.argv = [name, "--help"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(f"{sys.path[0]}/{name}.py", run_name="__main__")
        except SystemExit as end:
            printed.write(f"ended with {end.code}")
    found[name] = printed.getvalue()
print(json.dumps(found))
"""


@pytest.fixture
def page(benchmark, tmp_path, monkeypatch):
    """The module ``page`` with a page of two tables and kept numbers of its own."""
    module = benchmark("page")
    monkeypatch.setattr(module, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    marks = ["\n".join(module.marks(name)) for name in ("speed", "size")]
    module.PAGE.write_text("Before.\n\n" + "\n\nBetween.\n\n".join(marks) + "\n\nAfter.\n")
    return module


def part_of(page, name="part", **options):
    return page.Part(
        name,
        "About it.",
        lambda seconds: [{"what": "a layer", "cost": 1.25}],
        {
            "speed": lambda numbers: (
                [["what", "cost"]]
                + [[each["what"], page.cell(each, "cost", 1.1)] for each in numbers]
            )
        },
        **options,
    )


def test_every_script_says_what_it_does_when_asked_for_help():
    command = [sys.executable, "-W", "ignore", "-c", HELP, str(FOLDER), *SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(SCRIPTS)
    for name, printed in found.items():
        assert printed.startswith("usage: "), name
        assert printed.endswith("ended with 0"), name


def test_the_page_has_room_for_every_table(benchmark):
    performance, gpu, page = map(benchmark, ("performance", "gpu", "page"))
    text = page.PAGE.read_text(encoding="utf-8")
    names = [name for part in (*performance.PARTS.values(), gpu.part()) for name in part.tables]
    assert len(names) == len(set(names))
    for name in names:
        assert "a table" in page.between(text, name, "a table")
    assert text.count(", written by a script -->") == len(names)


def test_a_part_keeps_its_numbers_prints_them_and_writes_them_into_the_page(page, capsys):
    part_of(page).run(0.0)
    assert "1.25 (1.10)" in capsys.readouterr().out
    assert "1.25" not in page.PAGE.read_text()
    assert page.write_page([part_of(page), part_of(page, "unmeasured")]) == ["unmeasured"]
    text = page.PAGE.read_text()
    assert "| what | cost |\n| --- | ---: |\n| a layer | 1.25 (1.10) |" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert text.startswith("Before.")
    assert text.endswith("After.\n")


def test_writing_twice_changes_nothing(page):
    part = part_of(page)
    part.run(0.0)
    page.write_page([part])
    once = page.PAGE.read_text()
    page.write_page([part])
    assert page.PAGE.read_text() == once


@pytest.mark.parametrize("damage", ["start is missing", "end is missing", "twice", "swapped"])
def test_a_page_without_its_marks_is_left_alone_and_an_error(page, damage):
    start, end = page.marks("speed")
    text = {
        "start is missing": end,
        "end is missing": start,
        "twice": f"{start}\n{end}\n{start}\n{end}",
        "swapped": f"{end}\n{start}",
    }[damage]
    with pytest.raises(ValueError, match="the page must hold the lines '<!-- speed, written"):
        page.between(text, "speed", "a table")


def test_a_figure_is_drawn_of_the_kept_numbers(page):
    drawn = []
    part = part_of(page, draw=drawn.append)
    part.run(0.0)
    assert not drawn
    page.write_page([part])
    assert drawn == [[{"what": "a layer", "cost": 1.25}]]


def test_a_part_that_is_unknown_is_named(benchmark):
    performance = benchmark("performance")
    assert performance.chosen("latency,layers") == ["latency", "layers"]
    assert performance.chosen("none") == []
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"takes networks, .*layers, .* got 'lair'"
    ):
        performance.chosen("lair")


def test_a_part_that_fails_is_told_and_the_others_go_on(benchmark, monkeypatch, capsys):
    performance = benchmark("performance")
    started = []

    def run(name, seconds):
        started.append(name)
        return int(name == "layers")

    monkeypatch.setattr(performance, "run", run)
    monkeypatch.setattr(sys, "argv", ["performance.py"])
    with pytest.raises(SystemExit, match=r"failed, its message is above: layers \(exit code 1\)"):
        performance.main()
    assert started == list(performance.PARTS)


def test_what_was_not_measured_is_a_dash(benchmark):
    layers = benchmark("layers")
    found = {"plain": 1.0, "ours": 1.25, "products": 0.75}
    number = {
        "layer": "B 1",
        "to reach": {"training": 1.1, "inference": None},
        "training": found,
        "inference": found,
    }
    heading, line = layers.training_lines([number])
    assert len(heading) == len(line)
    assert line[:2] == ["B 1", "1.25 (1.10)"]
    assert set(line[2:-1]) == {"-"}
    assert line[-1] == "60% (75%)"
    assert layers.inference_lines([number])[1][1] == "1.25"


def test_the_einsum_of_the_notebook_is_our_additive_layer(benchmark):
    contenders = benchmark("contenders")
    plain = nn.Linear(5, 4).double()
    by_hand = contenders.NotebookLayer(plain, members=3).double()
    twin = RankOneLinear(plain, members=3, mode="additive")
    with torch.no_grad():
        twin.r.copy_(by_hand.r.view_as(twin.r))
        twin.s.copy_(by_hand.s.view_as(twin.s))
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(
        by_hand(x.transpose(0, 1)).transpose(0, 1), twin(x), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("name", ["linear", "convolution"])
def test_a_layer_a_member_is_the_same_in_a_loop_and_stacked(benchmark, name):
    contenders = benchmark("contenders")
    found = getattr(contenders, name)(2, 3, 4, 5, dtype=torch.float64)
    loop = found["loop"].module(found["loop"].x)
    stacked = found["stacked"].module(found["stacked"].x)
    if name == "convolution":
        stacked = stacked.unflatten(1, (3, 4)).transpose(0, 1)
    torch.testing.assert_close(stacked, loop, rtol=0, atol=1e-10)
    plain = found["plain"].module(found["plain"].x)
    torch.testing.assert_close(loop.flatten(0, 1), plain, rtol=0, atol=1e-10)


def test_contenders_are_timed_on_their_work_alone(benchmark):
    contenders, interleaved = benchmark("contenders"), benchmark("interleaved")
    found = contenders.linear(2, 3, 4, 5, peers=False)
    assert list(found) == ["plain", "ours", "additive", "products"]
    over = interleaved.ratios({name: each.train() for name, each in found.items()}, seconds=0)
    assert over["plain"] == 1
    assert all(value > 0 for value in over.values())
    assert all(parameter.grad is None for parameter in found["ours"].module.parameters())


def test_memory_is_counted_and_the_same_every_time(benchmark):
    memory, contenders = benchmark("memory"), benchmark("contenders")
    layer = contenders.linear(64, 2, 32, 16, peers=False)["plain"]
    held = [
        memory.held(layer.module, lambda: layer.module(layer.x), layer.train()) for _ in range(2)
    ]
    assert held[0] == held[1]
    assert held[0]["kept"] == layer.x.nbytes
    rows, inputs, outputs = 128, 32, 16
    gradients = rows * inputs + inputs * outputs + outputs
    assert held[0]["peak"] >= 4 * gradients


def test_where_two_ways_cross(benchmark):
    crossover = benchmark("cost_model").crossover
    assert crossover({1: 4.0, 4: 0.25}) == pytest.approx(2)
    assert crossover({1: 0.5, 2: 0.25}) is None
    assert crossover({1: 2.0, 2: 1.5}) is None
    assert crossover({1: 4.0, 2: 0.9, 4: 2.0, 8: 0.5}) == pytest.approx(4 * 2**0.5)


def test_a_forced_constant_is_put_back(benchmark):
    from batchensemble.layers.rank_one import arithmetic as rank_one

    cost_model = benchmark("cost_model")
    before, seen = rank_one.SMALL_PRODUCT, []
    cost_model.forced(lambda: seen.append(rank_one.SMALL_PRODUCT), SMALL_PRODUCT=7)()
    assert seen == [7]
    assert before == rank_one.SMALL_PRODUCT
    assert all(cost_model.value_of(name) > 0 for name in cost_model.SWEEPS)


def test_the_cubic_toy_says_from_where_on_doubt_grows(benchmark):
    grows_after = benchmark("cubic").grows_after
    assert grows_after(torch.tensor([1.0, 2.0, 3.0]).numpy()) == 0
    assert grows_after(torch.tensor([1.0, 0.5, 3.0, 2.0, 2.5]).numpy()) == pytest.approx(0.3)
    assert grows_after(torch.tensor([1.0, 1.0, 3.0]).numpy()) == pytest.approx(0.1)
