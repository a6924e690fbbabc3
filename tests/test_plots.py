import matplotlib as mpl
import numpy as np
import pytest
import torch

from lightning_poison import plots
from lightning_poison.errors import UserError


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_histogram_has_a_panel_per_class_and_counts_every_reached_point():
    lengths = torch.tensor([1, 1, 2, 7, 9, 9, 30])
    labels = torch.tensor([0, 0, 0, 2, 2, 2, 2])
    reached = torch.tensor([True, True, True, True, True, True, False])
    figure = plots.path_length_histogram(lengths, labels, reached=reached, class_names=["a", "b", "c"])
    assert titles(figure) == ["a", "c, 1 never flip"]
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert [sum(each) for each in heights] == [3, 3]
    assert [axes.lines[0].get_xdata()[0] for axes in figure.axes] == [1.0, 9.0]
    low, high = figure.axes[0].patches[0].get_x(), figure.axes[0].patches[-1].get_x()
    assert low < 1 < 9 < high + 1.5
    assert heights[0][:2] == [2, 1]


def test_histogram_of_nothing_reached_still_draws():
    figure = plots.path_length_histogram([5, 5], [0, 0], reached=[False, False])
    assert titles(figure) == ["class 0, 2 never flip"]
    assert len(figure.axes[0].texts) == 0


def test_histogram_bins_long_paths_into_whole_widths():
    figure = plots.path_length_histogram(np.arange(1000))
    bars = figure.axes[0].patches
    assert len(bars) <= 40
    assert sum(bar.get_height() for bar in bars) == 1000
    assert {bar.get_height() for bar in bars[:-1]} == {25.0}


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 1, 4, 6), (5, 3, 4, 6)])
def test_image_grid_shows_each_image_clipped(shape):
    images = torch.linspace(-1, 2, int(np.prod(shape))).reshape(shape)
    figure = plots.image_grid(images, [str(i) for i in range(5)], columns=3)
    assert [axes.get_title() for axes in figure.axes] == ["0", "1", "2", "3", "4"]
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    for image, picture in zip(images.clamp(0, 1).numpy(), shown, strict=True):
        wanted = image if image.ndim == 2 else image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        np.testing.assert_allclose(picture, wanted, atol=1e-6)


def test_image_grid_takes_bytes_as_grey_levels():
    picture = plots.image_grid(np.full((1, 2, 2), 51, dtype=np.uint8)).axes[0].images[0].get_array()
    np.testing.assert_allclose(picture, 0.2)


def test_image_grid_labels_rows():
    figure = plots.image_grid(np.zeros((4, 2, 2)), row_labels=["near", "far"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["near", "", "far", ""]


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.image_grid(np.zeros((2, 5, 4, 4))),
        lambda: plots.image_grid(np.zeros((2, 4, 4)), ["one"]),
        lambda: plots.image_grid(np.zeros((3, 4, 4)), row_labels=["a", "b"], columns=1),
        lambda: plots.certified_accuracy_curve([0, 1], [0.5]),
        lambda: plots.required_margin_figure([0, 1], [0.5]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call):
    with pytest.raises(UserError):
        call()


def test_certified_curve_is_a_lower_bound_between_radii():
    series = {"a": [0.9, 0.5], "b": [0.8, 0.7]}
    figure = plots.certified_accuracy_curve(torch.tensor([0, 10]), series, clean_accuracy=0.95)
    lines = figure.axes[0].lines
    for line, values in zip(lines, series.values(), strict=False):
        assert line.get_drawstyle() == "steps-pre"
        assert line.get_ydata().tolist() == values
        assert line.get_xdata().tolist() == [0, 10]
    assert list(lines[2].get_ydata()) == [0.95, 0.95]


def test_others_figures_stand_beside_the_certified_curve():
    figure = plots.certified_accuracy_curve(
        [0, 10], [0.9, 0.5], published={"theirs": {10: 0.4, 0: 0.8}}, attacked={"undefended": {0: 1.0, 5: 0.2}}
    )
    certified, attacked, published = figure.axes[0].lines
    assert (attacked.get_linestyle(), attacked.get_drawstyle()) == (":", "steps-post")
    assert published.get_xydata().tolist() == [[0, 0.8], [10, 0.4]]
    assert (published.get_linestyle(), published.get_marker()) == ("None", "o")
    assert certified.get_label() == "certified accuracy"


def test_no_error_probability_above_one_is_drawn():
    figure = plots.required_margin_figure([1, 100], {"KL": np.array([-4.0, -350.0])})
    assert figure.axes[1].get_xlim()[0] == 1.0


def test_required_margins_are_one_relation_drawn_twice():
    errors = np.log([0.3, 0.01])
    figure = plots.required_margin_figure([1, 20], {"KL": errors, "tight": errors / 2})
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [[1, 0.7], [20, 0.99]])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[0.3, 1], [0.01, 20]])
    beyond = plots.required_margin_figure([1, 20], [-1.0, -900.0]).axes[1].lines[0]
    np.testing.assert_allclose(beyond.get_xydata(), [[np.exp(-1.0), 1]])


def test_training_curves_show_the_history():
    history = {
        "val/acc": [(0, 0.5), (1, float("nan")), (2, 0.9)],
        "train/loss": [(0, 2.0), (1, 1.0)],
        "poison/fitted": [(1, 0.25)],
        "poison/count": [(0, 100.0)],
        "lr-Adam": [(0, 0.1)],
    }
    figure = plots.training_curves(history, labels={"val/acc": "Accuracy (validation)"})
    assert titles(figure) == ["Accuracy", "Poisons", "Loss"]
    accuracy, poisons, loss = (axes.lines[0] for axes in figure.axes)
    assert accuracy.get_label() == "Accuracy (validation)"
    np.testing.assert_array_equal(accuracy.get_ydata(), [0.5, np.nan, 0.9])
    assert list(accuracy.get_xdata()) == [1, 2, 3]
    assert list(poisons.get_xdata()) == [2]
    assert list(loss.get_ydata()) == [2.0, 1.0]


def test_flip_matrix_counts():
    figure = plots.flip_matrix(torch.tensor([0, 0, 2]), torch.tensor([1, 1, 3]), 3)
    counts = np.asarray(figure.axes[0].images[0].get_array())
    wanted = np.zeros((4, 4))
    wanted[0, 1], wanted[2, 3] = 2, 1
    np.testing.assert_array_equal(counts, wanted)
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "2"]


def test_comparison_bars_pair_the_labels_of_both():
    figure = plots.comparison_bars({"a": 0.9, "b": 0.4, "c": 1.0}, {"b": 0.6, "a": 0.95}, names=("mine", "twin"))
    mine, twin = figure.axes[0].containers
    assert [bar.get_width() for bar in mine] == [0.9, 0.4]
    assert [bar.get_width() for bar in twin] == [0.95, 0.6]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mine", "twin"]


def test_nothing_touches_global_state():
    before = dict(mpl.rcParams)
    plots.image_grid(np.zeros((2, 4, 4)))
    plots.certified_accuracy_curve([0], [1.0])
    assert dict(mpl.rcParams) == before
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert pyplot.get_fignums() == []
