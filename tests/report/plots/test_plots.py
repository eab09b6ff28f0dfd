"""The figures: all are made for every kind of data, and a method looks the same in each."""

import math
import struct
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from batchensemble import Prediction
from batchensemble.comparison.compare import Settings, compare
from batchensemble.data.datasets import Data
from batchensemble.ensembles.methods import METHODS
from batchensemble.metrics import losses_by_example, score
from batchensemble.metrics import reliability as bins_of
from batchensemble.report.plots import (
    accuracy_time,
    draw_all,
    epistemic_histogram,
    loss_curves,
    member_curves,
    members,
    plane,
    reliability_diagram,
    reliability_panels,
    save_all,
    style_of,
)
from batchensemble.report.plots.calibration import wilson
from batchensemble.report.plots.saving import png, svg
from batchensemble.report.plots.style import plain, subsample
from batchensemble.training.history import History

EVERY_FIGURE = [
    "confusion",
    "reliability",
    "plane",
    "members",
    "member_curves",
    "epistemic_histogram",
    "loss_curves",
    "accuracy_time",
]
HOSTILE = "$\\frac{<script>alert(1)</script>\n"


def blobs(features=2, classes=2, examples=300, names=None, class_names=None):
    """Return classes around different points, which overlap."""
    rng = np.random.default_rng(0)
    y = np.arange(examples) % classes
    X = rng.normal(size=(examples, features)) + 2 * np.eye(classes, features)[y]
    X, y = X.astype(np.float32), y.astype(np.int64)
    names = names or tuple(f"x{i}" for i in range(features))
    return Data("blobs", (X, y), (X, y), names, class_names or tuple("abcdefghij"[:classes]), False)


def compared(data, **settings):
    quick = {"members": 2, "epochs": 3, "hidden": (8,), "lr": 0.02, "batch_size": 20, **settings}
    return compare(data, Settings(**quick), progress=False)


@pytest.fixture(scope="module")
def binary():
    return compared(blobs())


@pytest.fixture(scope="module")
def many_classes():
    return compared(blobs(features=5, classes=10), seeds=2)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_two_classes_and_two_features_give_every_figure(binary):
    figures = draw_all(binary)
    assert list(figures) == EVERY_FIGURE
    assert all(isinstance(figure, Figure) for figure in figures.values())


def test_many_classes_features_and_seeds_give_every_figure(many_classes):
    figures = draw_all(many_classes)
    assert list(figures) == EVERY_FIGURE
    assert any("principal components" in text for text in texts(figures["plane"]))
    assert any("principal components" in text for text in texts(figures["members"]))


def test_one_panel_holds_its_legend_and_what_is_said_of_its_axes():
    comparison = compared(
        blobs(features=5, class_names=("malignant", "benign")), methods=("batch",)
    )
    figure = draw_all(comparison)["plane"]
    figure.draw_without_rendering()
    within = figure.bbox.padded(1)
    said = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert any("held at their mean" in " ".join(text.get_text().split()) for text in said)
    for text in said:
        box = text.get_window_extent()
        assert within.xmin <= box.xmin, text.get_text()
        assert box.xmax <= within.xmax, text.get_text()


def test_one_feature_has_no_plane():
    comparison = compared(blobs(features=1), methods=("deep",), epochs=1)
    assert not {"plane", "members"} & set(draw_all(comparison))
    with pytest.raises(ValueError, match="no plane to draw: at least two features"):
        plane(comparison)


def test_a_feature_that_never_varies_makes_no_plane():
    data = blobs()
    data.train[0][:, 1] = 0
    comparison = compared(data, methods=("deep",), epochs=1)
    assert not {"plane", "members"} & set(draw_all(comparison))
    with pytest.raises(ValueError, match="two features that vary"):
        members(comparison)


def test_one_network_alone_has_no_histogram_of_differences(binary):
    alone = replace(binary, runs=binary.of("single"))
    of_several = {"member_curves", "epistemic_histogram"}
    assert list(draw_all(alone)) == [name for name in EVERY_FIGURE if name not in of_several]
    assert list(draw_all(replace(binary, runs=binary.of("mimo")))) == EVERY_FIGURE


def test_an_interrupted_comparison_shows_what_is_finished(many_classes):
    partly = replace(many_classes, runs=many_classes.runs[:5], interrupted=True)
    assert list(draw_all(partly)) == EVERY_FIGURE
    assert draw_all(replace(many_classes, runs=[], interrupted=True)) == {}


def test_a_training_without_held_out_scores_has_one_panel_of_losses(binary):
    runs = [replace(run, history=History(losses=[0.5, 0.4, 0.3])) for run in binary.runs[:2]]
    assert len(loss_curves(replace(binary, runs=runs))) == 1
    assert len(loss_curves(binary)) == 2


def test_curves_of_members_go_from_one_to_all(many_classes):
    accuracy, nll = member_curves(many_classes)
    run = many_classes.of("deep")[0]
    labels = many_classes.data.held_out[1]
    for ax, key in ((accuracy, "accuracy"), (nll, "nll")):
        drawn = {line.get_gid(): line.get_xydata() for line in ax.get_lines()}
        assert set(drawn) == set(many_classes.methods)
        assert drawn["single"].shape == (1, 2)
        alone = [score(Prediction(run.classes.member_probs[:, [i]]), labels)[key] for i in (0, 1)]
        expected = [[1, np.mean(alone)], [2, run.scores[key]]]
        np.testing.assert_allclose(drawn["deep"], expected)
    errors = [
        losses_by_example(many_classes.of(method)[0].classes, labels, "error").std()
        for method in many_classes.methods
    ]
    low, high = accuracy.get_ylim()
    assert high - low >= 4 * max(errors) / math.sqrt(len(labels)) - 1e-12


def test_hostile_names_are_drawn_as_they_are():
    data = blobs(names=(HOSTILE, "ünïcode\x01\t一"), class_names=(HOSTILE, "$x$"))
    figures = draw_all(compared(data, methods=("batch",), epochs=1))
    for figure in figures.values():
        ElementTree.fromstring(svg(figure))
    assert any("$\\frac{<script>" in text for text in texts(figures["plane"]))


def test_every_method_has_its_own_colour_marker_and_line():
    for attribute in ("name", "colour", "marker", "line"):
        assert len({str(getattr(style, attribute)) for style in map(style_of, METHODS)}) == len(
            METHODS
        )


def test_a_method_has_one_colour_and_marker_in_every_legend(binary):
    figures = draw_all(binary)
    by_name = {style.name: style for style in map(style_of, METHODS)}
    seen = 0
    for name in ("epistemic_histogram", "loss_curves", "accuracy_time"):
        figure = figures[name]
        [legend] = [*figure.legends, *(ax.legend_ for ax in figure.axes if ax.legend_)]
        for handle in legend.legend_handles:
            style = by_name[handle.get_label()]
            assert to_hex(handle.get_color()) == style.colour.lower()
            assert handle.get_marker() == style.marker
            seen += 1
    assert seen == 3 + 4 + 4


def test_panels_and_legends_of_many_methods_go_on_below():
    settings = Settings(methods=tuple(METHODS), members=2, epochs=1, hidden=(4,))
    comparison = compare(blobs(features=3), settings, progress=False)
    figures = draw_all(comparison)
    for name, rows in (("reliability", 2), ("plane", 2), ("confusion", 1), ("members", 1)):
        figure = figures[name]
        figure.draw_without_rendering()
        panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
        assert len(panels) == rows * len(METHODS)
        assert len({round(ax.get_position().x0, 3) for ax in panels}) == 5  # side by side
        boxes = [ax.get_position() for ax in panels]
        assert not any(
            one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1
            for number, one in enumerate(boxes)
            for other in boxes[:number]
        )
    diagrams = [ax for ax in figures["reliability"].axes if ax.get_title()]
    assert len({ax.get_ylim() for ax in diagrams}) == 1
    for name in ("epistemic_histogram", "accuracy_time", "loss_curves", "member_curves"):
        figure = figures[name]
        figure.draw_without_rendering()
        [legend] = [*figure.legends, *(ax.legend_ for ax in figure.axes if ax.legend_)]
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_panels_use_the_colour_of_the_method_they_name(binary):
    for method, ax in zip(binary.methods, reliability_panels(binary), strict=False):
        style = style_of(method)
        assert ax.get_title() == style.name
        points = ax.containers[-1].lines[0]
        assert to_hex(points.get_color()) == style.colour.lower()
        assert points.get_marker() == style.marker
    for method, ax in zip(binary.methods, members(binary), strict=True):
        lines = ax.collections[-1].get_edgecolor()
        assert {to_hex(colour) for colour in lines} == {style_of(method).colour.lower()}


def test_curves_hold_the_numbers_of_the_history(binary):
    training, held_out = loss_curves(binary)
    for run, solid, dashed in zip(binary.runs, training.lines, held_out.lines, strict=True):
        np.testing.assert_array_equal(solid.get_ydata(), run.history.losses)
        np.testing.assert_array_equal(dashed.get_ydata(), run.history.validation_nll)
        assert solid.get_linestyle() == "-"
        assert dashed.get_linestyle() == "--"


def test_reliability_counts_every_example_and_says_the_error(binary):
    axes = reliability_panels(binary)
    figure = axes[0].figure
    heights = [bar.get_height() for bar in axes[4].patches]
    assert sum(heights) == len(binary.data.held_out[0])
    assert f"ECE {binary.runs[0].scores['ece']:.4f}" in texts(figure)


def test_histogram_leaves_out_one_member_and_shows_every_example(binary):
    ax = epistemic_histogram(binary)
    assert "Single network left out: one member, always 0" in ax.get_xlabel()
    assert "below 1e-8 are in the first bin" in ax.get_xlabel()
    shares = [patch.get_data().values.sum() for patch in ax.patches]
    assert shares == pytest.approx([1.0] * 6)  # three methods, filled and outlined


def test_the_scale_of_the_doubt_is_one_for_all_methods(binary):
    lower = plane(binary)[4:8]
    limits = {mesh.get_clim() for ax in lower for mesh in ax.collections[:1]}
    assert len(limits) == 1


def test_a_single_panel_is_drawn_into_the_axes_given(binary):
    ax = Figure().subplots()
    assert accuracy_time(binary, ax) is ax
    assert ax.get_xlabel() == "training time (seconds)"
    assert ax.get_xlim()[0] == 0


@pytest.mark.parametrize(
    ("draw", "rows", "columns"),
    [(reliability_panels, 2, 4), (plane, 2, 4), (members, 1, 4), (loss_curves, 1, 2)],
)
def test_panels_are_drawn_into_the_axes_given(binary, draw, rows, columns):
    axes = Figure(layout="constrained").subplots(rows, columns, squeeze=False)
    drawn = draw(binary, axes)
    assert [id(ax) for ax in drawn] == [id(ax) for ax in axes.flat]
    assert all(ax.has_data() for ax in axes[0])
    with pytest.raises(ValueError, match=f"axes must be {rows * columns}, .* got 1"):
        draw(binary, axes[:1, :1])


def test_several_seeds_show_their_mean(many_classes):
    ax = accuracy_time(many_classes)
    accuracies = [run.scores["accuracy"] for run in many_classes.of("single")]
    means = [bar.lines[0].get_ydata()[0] for bar in ax.containers]
    assert means[0] == pytest.approx(np.mean(accuracies))
    assert all(bar.has_xerr and bar.has_yerr for bar in ax.containers)


def test_one_seed_shows_what_chance_does_to_an_accuracy(binary):
    ax = accuracy_time(binary)
    for run, bar in zip(binary.runs, ax.containers, strict=True):
        [(low, high)] = [segment[:, 1] for segment in bar.lines[2][0].get_segments()]
        accuracy = run.scores["accuracy"]
        assert (high - low) / 2 == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 300))


def test_saved_files_are_valid_and_the_same_each_time(binary, tmp_path):
    figures = {"losses": loss_curves(binary)[0].figure}
    save_all(figures, tmp_path / "new" / "folder")
    made = tmp_path / "new" / "folder"
    assert sorted(path.name for path in made.iterdir()) == ["losses.png", "losses.svg"]
    ElementTree.parse(made / "losses.svg")
    content = (made / "losses.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width > height > 300
    assert b"date" not in (made / "losses.svg").read_bytes().lower()
    again = loss_curves(binary)[0].figure
    assert svg(again) == (made / "losses.svg").read_bytes()
    assert png(again) == content


def test_a_file_that_cannot_be_written_is_an_os_error_and_leaves_nothing(binary, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        save_all({"losses": loss_curves(binary)[0].figure}, tmp_path / "file" / "figures")
    (tmp_path / "losses.svg").mkdir()
    with pytest.raises(OSError, match=r"losses\.svg"):
        save_all({"losses": loss_curves(binary)[0].figure}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "losses.svg"]


def test_wilson_intervals_hold_the_share_and_narrow_with_more_examples():
    low, high = wilson(np.array([0.5, 0.5, 0.0]), np.array([10, 1000, 10]))
    assert low[0] == pytest.approx(0.2366, abs=1e-4)
    assert high[0] == pytest.approx(0.7634, abs=1e-4)
    assert high[1] - low[1] < 0.07
    assert low[2] == pytest.approx(0, abs=1e-12)


def test_long_names_are_cut_and_points_are_spread():
    assert plain("a" * 50, 10) == "a" * 9 + "…"
    assert len(subsample(6000, 1500)) == 1500
    assert subsample(6000, 1500)[-1] == 5999
    assert list(subsample(3, 1500)) == [0, 1, 2]


def test_a_reliability_diagram_is_drawn_into_the_axes_given():
    found = bins_of(
        Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]], [[0.9, 0.1]]])), np.array([0, 0, 0])
    )
    ax = Figure().subplots()
    assert reliability_diagram(found, ax, title="after") is ax
    assert ax.get_title() == "after"
    assert f"ECE {found.ece:.4f}" in [text.get_text() for text in ax.texts]
    bars = sorted(round(bar.get_height(), 6) for bar in ax.patches)
    assert bars == [0.5, 1.0]
    with pytest.raises(ValueError, match=r"method must be one of single, .*, got 'bach'"):
        reliability_diagram(found, method="bach")
