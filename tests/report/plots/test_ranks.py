"""The diagram of mean ranks: methods where their ranks are, bars over what is not told apart."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from batchensemble.comparison.ranking import rank_folders
from batchensemble.report.plots import figure_of, mean_ranks, save_as
from batchensemble.report.plots.ranks import described
from batchensemble.report.plots.style import style_of
from written_comparisons import write_comparisons

ORDER = {"deep": 0.1, "batch": 0.2, "single": 0.3, "mimo": 0.4}


def lines(ax, name):
    return [line for line in ax.lines if line.get_gid() == name]


def ranked(folder, by_method):
    return rank_folders(write_comparisons(folder, by_method))


@pytest.fixture
def ranking(tmp_path):
    return ranked(tmp_path, {method: np.full(6, nll) for method, nll in ORDER.items()})


def test_methods_stand_at_their_mean_ranks_the_best_on_top(ranking):
    ax = mean_ranks(ranking)
    for place, method in enumerate(ORDER, start=1):
        [marker] = lines(ax, method)
        assert marker.get_xdata() == [place]
        assert marker.get_color() == style_of(method).colour
    heights = [lines(ax, method)[0].get_ydata()[0] for method in ORDER]
    assert heights == sorted(heights)
    assert ax.yaxis_inverted()
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        style_of(method).name for method in ORDER
    ]
    assert ax.get_xlabel() == "mean rank by NLL over 6 data sets (1 is the best)"


def test_bars_join_what_is_not_significance(ranking):
    bars = lines(mean_ranks(ranking), "no-significant-difference")
    spans = [bar.get_xdata() for bar in bars]
    for (left, right), expected in zip(spans, ((1, 2), (2, 3), (3, 4)), strict=True):
        assert (left, right) == pytest.approx(expected, abs=0.05)
    assert len({bar.get_ydata()[0] for bar in bars}) == 3


def test_the_critical_difference_is_drawn_as_long_as_it_is(ranking):
    ax = mean_ranks(ranking)
    [segment] = ax.containers[0].lines[2][0].get_segments()
    assert np.ptp(segment[:, 0]) == pytest.approx(ranking.over_all.critical_difference)
    assert "critical difference 1.91" in [text.get_text() for text in ax.texts]


def test_one_that_is_longer_than_the_axis_is_said(tmp_path):
    ax = mean_ranks(ranked(tmp_path, {method: [nll] * 2 for method, nll in ORDER.items()}))
    assert not ax.containers
    assert "critical difference 3.32, larger than any possible difference, 3" in [
        text.get_text() for text in ax.texts
    ]
    [bar] = lines(ax, "no-significant-difference")
    assert bar.get_xdata() == pytest.approx([1, 4], abs=0.05)


def test_long_names_are_cut_and_stay_inside(tmp_path):
    names = {
        "$\\frac{very long " + "name of a method " * 8 + str(row): [row] * 6 for row in range(9)
    }
    ax = mean_ranks(ranked(tmp_path, names))
    figure = figure_of(ax)
    figure.draw_without_rendering()
    for text in [*ax.get_yticklabels(), *ax.texts]:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))


def test_axes_that_are_given_are_drawn_on(ranking):
    ax = Figure().subplots()
    assert mean_ranks(ranking, ax) is ax


def test_the_description_is_in_the_file(ranking, tmp_path):
    said = described(ranking)
    assert "Deep ensemble 1.00, BatchEnsemble 2.00, Single network 3.00 and MIMO 4.00" in said
    assert "critical difference is 1.91. By NLL the deep ensemble is significantly better" in said
    figure = figure_of(mean_ranks(ranking))
    for kind in ("svg", "PNG"):
        save_as(figure, tmp_path / f"ranks.{kind}", said)
        assert said[:40].encode() in (tmp_path / f"ranks.{kind}").read_bytes()
