"""The picture of accuracy against the radius."""

import numpy as np
import pytest

from lightning_poison.errors import UserError
from lightning_poison.plots import robustness_curve_figure


def test_curves_begin_at_natural_accuracy_and_bands_lie_where_was_measured():
    figure = robustness_curve_figure(
        [0.1, 0.2],
        {"pgd": [0.6, 0.2], "fgsm": [0.7, 0.4]},
        intervals={"pgd": [(0.5, 0.7), (0.1, 0.3)]},
        natural_accuracy=0.9,
    )
    axes = figure.axes[0]
    curves = [line.get_xydata().tolist() for line in axes.lines[:2]]
    assert curves == [[[0, 0.9], [0.1, 0.6], [0.2, 0.2]], [[0, 0.9], [0.1, 0.7], [0.2, 0.4]]]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert (corners[:, 0].min(), corners[:, 0].max()) == (0.1, 0.2)
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.1, 0.7)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["pgd", "fgsm"]


def test_the_scale_on_top_is_in_grey_levels():
    figure = robustness_curve_figure([8 / 255, 16 / 255], [0.5, 0.2])
    axes = figure.axes[0]
    figure.canvas.draw()
    (above,) = axes.child_axes
    assert np.allclose(above.get_xlim(), [255 * end for end in axes.get_xlim()])
    assert axes.get_legend() is None


def test_a_measured_radius_zero_is_not_drawn_twice():
    figure = robustness_curve_figure([0, 0.1], [0.9, 0.5], natural_accuracy=0.9)
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0, 0.1]


def test_without_natural_accuracy_nothing_stands_at_zero():
    axes = robustness_curve_figure([0.1, 0.2], [0.9, 0.5], ylabel="not driven to the target").axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0.1, 0.2]]
    assert (axes.get_ylabel(), axes.texts[:]) == ("not driven to the target", [])


def test_a_series_of_another_length():
    with pytest.raises(UserError, match=r"accuracy 'pgd' must have one value per radius \(2,\), got \(1,\)"):
        robustness_curve_figure([0.1, 0.2], {"pgd": [0.5]})
