from __future__ import annotations

import math

from matplotlib.text import Text

from lightning_poison.plots import strategy_curve, strategy_intervals
from lightning_poison.plots.accuracy import IntervalPoint

SURE, UNSURE = IntervalPoint(-0.15, -0.2, -0.1), IntervalPoint(0.05, math.nan, math.nan)


def test_a_panel_for_each_radius_a_row_for_each_strategy_a_colour_for_each_victim():
    panels = {
        "eps 0.05": {"medoids": {"MLP": SURE, "CNN": UNSURE}, "meta": {"CNN": SURE}},
        "eps 0.1": {"medoids": {"MLP": UNSURE}},
    }
    figure = strategy_intervals(panels, xlabel="minus random")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(panels)
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["medoids", "meta"]
    points = {line.get_label(): line for line in first.lines if line.get_label() in ("MLP", "CNN")}
    assert list(points["MLP"].get_xdata()) == [-0.15]
    assert list(points["CNN"].get_xdata()) == [0.05, -0.15]
    assert [round(place) for place in points["CNN"].get_ydata()] == [0, 1]
    assert points["MLP"].get_color() != points["CNN"].get_color()
    intervals = [line for line in first.lines if list(line.get_xdata()) == [-0.2, -0.1]]
    assert len(intervals) == 2  # where there is no interval, none is drawn
    low, high = first.get_ylim()
    assert low > high  # the first strategy on top
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MLP", "CNN"]
    figure.canvas.draw()


def test_a_curve_runs_beside_the_level_of_the_baseline():
    panels = {"CNN": {"near": SURE, "middle": UNSURE}, "MLP": {"middle": SURE}}
    figure = strategy_curve(panels, {"CNN": IntervalPoint(0.6, 0.5, 0.7)})
    first, second = figure.axes
    assert [label.get_text() for label in first.get_xticklabels()] == ["near", "middle"]
    curve = next(line for line in first.lines if line.get_marker() == "o")
    assert list(curve.get_xdata()) == [0, 1]
    assert list(curve.get_ydata()) == [-0.15, 0.05]
    assert [list(line.get_ydata()) for line in first.lines if line.get_label() == "random"] == [[0.6, 0.6]]
    assert [list(line.get_xdata()) for line in second.lines if line.get_marker() == "o"] == [[1]]
    assert second.get_legend() is None
    figure.canvas.draw()


def test_what_is_drawn_stands_once_however_long_the_names_are():
    rows = {"dominating set, inputs and features": {"stride CNN": SURE}}
    figure = strategy_intervals({"eps 0.05": rows, "eps 0.1": rows}, xlabel="adversarial accuracy minus random, points")
    figure.canvas.draw()
    below = [text for text in figure.findobj(Text) if text.get_text() == "adversarial accuracy minus random, points"]
    assert len(below) == 1
    extent = below[0].get_window_extent()
    assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1
    assert not any(axes.get_window_extent().overlaps(extent) for axes in figure.axes)


def test_nothing_still_draws():
    for figure in (strategy_intervals({}, xlabel="x"), strategy_curve({}, {})):
        figure.canvas.draw()
