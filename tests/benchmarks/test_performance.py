"""The page on performance: what the scripts measure, and how it gets onto the page."""

import argparse
import sys

import pytest
import torch
from torch import nn

from batchensemble.layers.linear import RankOneLinear
from benchmarks import pages
from benchmarks.performance import contenders, cost_model, gpu, interleaved, layers, memory, parts
from benchmarks.performance import page as performance


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page of two tables and kept numbers of its own."""
    monkeypatch.setattr(parts, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(parts, "KEPT", tmp_path / "kept")
    marks = ["\n".join(pages.marks(name)) for name in ("speed", "size")]
    parts.PAGE.write_text("Before.\n\n" + "\n\nBetween.\n\n".join(marks) + "\n\nAfter.\n")
    return parts.PAGE


def part_of(name="part", **options):
    return parts.Part(
        name,
        "About it.",
        lambda seconds: [{"what": "a layer", "cost": 1.25}],
        {
            "speed": lambda numbers: (
                [["what", "cost"]]
                + [[each["what"], parts.cell(each, "cost", 1.1)] for each in numbers]
            )
        },
        **options,
    )


def test_the_page_has_room_for_every_table():
    text = parts.PAGE.read_text(encoding="utf-8")
    names = [name for part in (*performance.PARTS.values(), gpu.part()) for name in part.tables]
    assert len(names) == len(set(names))
    for name in names:
        assert "a table" in pages.between(text, name, "a table")
    assert text.count(", written by a script -->") == len(names)


def test_a_part_keeps_its_numbers_prints_them_and_writes_them_into_the_page(page, capsys):
    part_of().run(0.0)
    assert "1.25 (1.10)" in capsys.readouterr().out
    assert "1.25" not in page.read_text()
    assert parts.write_page([part_of(), part_of("unmeasured")]) == ["unmeasured"]
    text = page.read_text()
    assert "| what | cost |\n| --- | ---: |\n| a layer | 1.25 (1.10) |" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert text.startswith("Before.")
    assert text.endswith("After.\n")


def test_writing_twice_changes_nothing(page):
    part = part_of()
    part.run(0.0)
    parts.write_page([part])
    once = page.read_text()
    parts.write_page([part])
    assert page.read_text() == once


def test_a_figure_is_drawn_of_the_kept_numbers(page):
    drawn = []
    part = part_of(draw=drawn.append)
    part.run(0.0)
    assert not drawn
    parts.write_page([part])
    assert drawn == [[{"what": "a layer", "cost": 1.25}]]


def test_a_part_that_is_unknown_is_named():
    assert performance.chosen("latency,layers") == ["latency", "layers"]
    assert performance.chosen("none") == []
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"takes networks, .*layers, .* got 'lair'"
    ):
        performance.chosen("lair")


def test_a_part_that_fails_is_told_and_the_others_go_on(monkeypatch, capsys):
    started = []

    def run(name, seconds):
        started.append(name)
        return int(name == "layers")

    monkeypatch.setattr(performance, "run", run)
    monkeypatch.setattr(sys, "argv", ["page.py"])
    with pytest.raises(SystemExit, match=r"failed, its message is above: layers \(exit code 1\)"):
        performance.main()
    assert started == list(performance.PARTS)


def test_what_was_not_measured_is_a_dash():
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


def test_the_einsum_of_the_notebook_is_our_additive_layer():
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
def test_a_layer_a_member_is_the_same_in_a_loop_and_stacked(name):
    found = getattr(contenders, name)(2, 3, 4, 5, dtype=torch.float64)
    loop = found["loop"].module(found["loop"].x)
    stacked = found["stacked"].module(found["stacked"].x)
    if name == "convolution":
        stacked = stacked.unflatten(1, (3, 4)).transpose(0, 1)
    torch.testing.assert_close(stacked, loop, rtol=0, atol=1e-10)
    plain = found["plain"].module(found["plain"].x)
    torch.testing.assert_close(loop.flatten(0, 1), plain, rtol=0, atol=1e-10)


def test_contenders_are_timed_on_their_work_alone():
    found = contenders.linear(2, 3, 4, 5, peers=False)
    assert list(found) == ["plain", "ours", "additive", "products"]
    over = interleaved.ratios({name: each.train() for name, each in found.items()}, seconds=0)
    assert over["plain"] == 1
    assert all(value > 0 for value in over.values())
    assert all(parameter.grad is None for parameter in found["ours"].module.parameters())


def test_memory_is_counted_and_the_same_every_time():
    layer = contenders.linear(64, 2, 32, 16, peers=False)["plain"]
    held = [
        memory.held(layer.module, lambda: layer.module(layer.x), layer.train()) for _ in range(2)
    ]
    assert held[0] == held[1]
    assert held[0]["kept"] == layer.x.nbytes
    rows, inputs, outputs = 128, 32, 16
    gradients = rows * inputs + inputs * outputs + outputs
    assert held[0]["peak"] >= 4 * gradients


def test_where_two_ways_cross():
    crossover = cost_model.crossover
    assert crossover({1: 4.0, 4: 0.25}) == pytest.approx(2)
    assert crossover({1: 0.5, 2: 0.25}) is None
    assert crossover({1: 2.0, 2: 1.5}) is None
    assert crossover({1: 4.0, 2: 0.9, 4: 2.0, 8: 0.5}) == pytest.approx(4 * 2**0.5)


def test_a_forced_constant_is_put_back():
    from batchensemble.layers.rank_one import arithmetic as rank_one

    before, seen = rank_one.SMALL_PRODUCT, []
    cost_model.forced(lambda: seen.append(rank_one.SMALL_PRODUCT), SMALL_PRODUCT=7)()
    assert seen == [7]
    assert before == rank_one.SMALL_PRODUCT
    assert all(cost_model.value_of(name) > 0 for name in cost_model.SWEEPS)
