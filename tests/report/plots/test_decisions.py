"""The figures of decisions: they draw what they were given, on the axes that they were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import batchensemble as be
from batchensemble.decisions import ConformalSets, Detection, RiskCoverage, Shifted
from batchensemble.report.plots import detection_roc, risk_coverage_curves, set_sizes, shift_curves
from batchensemble.report.plots.decisions import MOST_CURVE_POINTS
from batchensemble.report.plots.saving import png
from batchensemble.report.plots.style import style_of

RNG = np.random.default_rng(0)
PREDICTION = be.Prediction(RNG.dirichlet([0.3] * 4, (5000, 2)))
LABELS = (PREDICTION.probs.cumsum(1) < RNG.random((5000, 1))).sum(1).clip(max=3)
ROWS = [Shifted("noise", float(k), 0.9 - k / 10, 0.1 * k, 0.0, 0.1, 0.1, 0.0) for k in range(4)]


def lines(ax):
    return {line.get_gid(): line for line in ax.lines if line.get_gid()}


def names(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_risk_is_drawn_against_coverage_with_a_threshold():
    curves = {by: be.risk_coverage(PREDICTION, LABELS, by) for by in ("total", "epistemic")}
    threshold = be.threshold_for(PREDICTION, LABELS, risk=0.2)
    ax = risk_coverage_curves(curves, threshold=threshold)
    assert list(lines(ax)) == ["total", "epistemic"]
    drawn = lines(ax)["total"]
    assert len(drawn.get_xdata()) == MOST_CURVE_POINTS
    assert drawn.get_xdata()[-1] == 1
    assert drawn.get_ydata()[-1] == curves["total"].risk[-1]
    assert f"total, AURC {curves['total'].aurc:.4f}" in names(ax)
    assert "threshold for 20 % with its bound" in names(ax)
    marked = ax.containers[0][0]
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == (threshold.coverage, threshold.risk)


def test_sizes_are_counted_and_those_with_the_true_class_too():
    sets = ConformalSets("aps", 0.8).fit(PREDICTION, LABELS)(PREDICTION)
    ax = set_sizes(sets, LABELS)
    every, right = ax.containers
    assert sum(bar.get_height() for bar in every) == pytest.approx(1)
    assert sum(bar.get_height() for bar in right) == pytest.approx(sets.coverage(LABELS))
    assert every[1].get_height() == pytest.approx((sets.sizes == 1).mean())
    assert right[0].get_height() == 0
    assert len(set_sizes(sets).containers) == 1


def test_detections_are_drawn_and_those_without_a_curve_left_out():
    found = be.detect_errors(PREDICTION, LABELS)
    found["none"] = Detection.of([1.0], [True])
    ax = detection_roc(found)
    assert list(lines(ax)) == ["total", "aleatoric", "epistemic", "confidence"]
    assert f"total, AUROC {found['total'].auroc:.3f}" in names(ax)
    with pytest.raises(ValueError, match="no detection to draw: there are 1 positive and 0"):
        detection_roc({"none": found["none"]})
    with pytest.raises(ValueError, match="no detection to draw: none is given"):
        detection_roc({})


def test_methods_keep_their_style_and_other_names_get_different_ones():
    ax = shift_curves({"batch": ROWS, "deep": ROWS}, "nll")
    assert lines(ax)["batch"].get_color() == style_of("batch").colour
    assert names(ax) == ["BatchEnsemble", "Deep ensemble"]
    assert lines(ax)["deep"].get_ydata() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert ax.get_xlabel() == "strength of the noise"
    assert ax.get_ylabel() == "NLL (nats)"
    ax = shift_curves({str(number): ROWS for number in range(5)})
    assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 5


def test_axes_that_are_given_are_drawn_on_and_can_be_saved():
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert risk_coverage_curves({"a": RiskCoverage.of([0.1], [1.0])}, axes[0]) is axes[0]
    assert shift_curves({"a": ROWS[:1]}, ax=axes[1]) is axes[1]
    assert png(figure).startswith(b"\x89PNG")


def test_nothing_to_draw_gets_a_sentence():
    with pytest.raises(ValueError, match="at least one curve to draw, got none"):
        risk_coverage_curves({})
    with pytest.raises(ValueError, match=r"measure must be one of accuracy, .* got 'accurate'"):
        shift_curves({"a": ROWS}, "accurate")
    sets = ConformalSets().fit(PREDICTION, LABELS)(be.Prediction(np.zeros((0, 1, 4))))
    with pytest.raises(ValueError, match="at least one set to draw, got none"):
        set_sizes(sets)
