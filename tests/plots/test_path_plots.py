"""Pictures of single paths: ends, a trace, the plane."""

import numpy as np
import pytest

from lightning_poison import plots
from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK


def drawable(image):
    if image.ndim == 2:
        return image
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)


def shown(axes):
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5)])
def test_ends_beside_starts_and_what_changed(shape):
    generator = np.random.default_rng(0)
    starts = generator.random((4, *shape))
    ends = starts + generator.uniform(-0.5, 0.5, starts.shape)
    names = [str(number) for number in range(4)]
    figure = plots.path_ends(starts, ends, start_titles=names, end_titles=names, row_labels=["a", "b"])
    cells = [axes for axes in figure.axes if axes.images]
    assert len(cells) == 12
    assert [axes.get_title() for axes in cells] == [*"00", "change", *"11", "change", *"22", "", *"33", ""]
    assert [cells[0].get_ylabel(), cells[6].get_ylabel()] == ["a", "b"]
    scale = np.abs(ends - starts).max()
    for number in range(4):
        start, end, change = (shown(axes) for axes in cells[3 * number : 3 * number + 3])
        np.testing.assert_allclose(start, drawable(starts[number]))
        np.testing.assert_allclose(end, drawable(ends[number]).clip(0, 1))
        signed = drawable(ends[number] - starts[number]) / scale
        np.testing.assert_allclose(change, (signed + 1) / 2 if shape[0] == 3 else signed)
    if shape[0] != 3:
        assert cells[2].images[0].get_clim() == (-1, 1)


def test_ends_that_do_not_fit():
    with pytest.raises(UserError, match="starts and ends must have one shape"):
        plots.path_ends(np.zeros((2, 4, 4)), np.zeros((3, 4, 4)))
    with pytest.raises(UserError, match="row_labels must divide 3 paths evenly, got 2 rows"):
        plots.path_ends(np.zeros((3, 4, 4)), np.zeros((3, 4, 4)), row_labels=["a", "b"])
    with pytest.raises(UserError, match="not empty"):
        plots.path_ends(np.zeros((0, 4, 4)), np.zeros((0, 4, 4)))


def test_ends_that_did_not_move():
    figure = plots.path_ends(np.ones((1, 4, 4)), np.ones((1, 4, 4)))
    assert not shown(figure.axes[2]).any()


def test_a_trace_shows_images_above_both_curves():
    images = np.linspace(0, 1, 3 * 16).reshape(3, 4, 4)
    left, reached = [0.9, 0.8, 0.6, 0.3], [0.1, 0.1, 0.3, 0.6]
    figure = plots.path_trace(images, [0, 1, 3], left, reached, label_name="class 4", goal_name="class 7")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["start", "step 1", "step 3"]
    for axes, image in zip(figure.axes, images, strict=False):
        np.testing.assert_allclose(shown(axes), image)
    curves = figure.axes[3].lines
    assert [text.get_text() for text in figure.axes[3].get_legend().get_texts()] == ["class 4", "class 7"]
    assert list(curves[0].get_xdata()) == [0, 1, 2, 3]
    assert list(curves[0].get_ydata()) == left
    assert list(curves[1].get_xdata()) == [0, 1, 3]  # the dots of the pictures
    assert list(curves[2].get_ydata()) == reached


@pytest.mark.parametrize(("steps", "curve"), [([0], [1, 1, 1]), ([0, 5], [1, 1, 1]), ([0, 1], [1, 1])])
def test_a_trace_that_does_not_fit(steps, curve):
    with pytest.raises(UserError, match=r"steps must name|probabilities must have"):
        plots.path_trace(np.zeros((2, 4, 4)), steps, curve, [0, 0, 0])


def regions(predictions, **arguments):
    cells = np.asarray(predictions)
    return plots.decision_regions(
        np.arange(cells.shape[1]), np.arange(cells.shape[0]), cells, anchors=[[0, 0], [3, 1]], **arguments
    )


def test_regions_are_named_in_the_legend_where_they_are_present():
    figure = regions([[5, 5, 2], [5, 9, 2]], anchor_names=["a", "b"], class_names=list("abcdefghij"))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["c", "f", "j"]
    faces = [patch.get_facecolor() for patch in figure.legends[0].get_patches()]
    assert len(set(faces)) == 3
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    assert figure.axes[0].get_xlim() == (-0.5, 2.5)
    assert figure.axes[0].get_ylim() == (-0.5, 1.5)
    assert figure.axes[0].get_aspect() == 1


def test_every_pixel_has_the_colour_of_its_class():
    generator = np.random.default_rng(0)
    cells = np.kron(generator.integers(0, 3, (5, 6)), np.ones((8, 8), dtype=int))
    figure = regions(cells, anchor_names=["", ""])
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())
    colours = [np.array(patch.get_facecolor()) * 255 for patch in figure.legends[0].get_patches()]
    axes = figure.axes[0]
    for row, column in [(4, 4), (12, 20), (36, 44), (28, 12), (20, 36)]:  # middles of blocks
        across, up = axes.transData.transform((column - 0.5, row - 0.5))
        seen = picture[round(picture.shape[0] - up), round(across)]
        np.testing.assert_allclose(seen, colours[cells[row, column]], atol=2)


def test_leads_put_the_boundary_between_cells():
    # Two classes whose scores differ by x - 0.25: the boundary is at a quarter of the way from cell 0 to cell 1.
    cells, leads = [[0, 1, 1], [0, 1, 1]], [[0.25, 0.75, 1.75]] * 2
    lines = [
        contour
        for contour in regions(cells, anchor_names=["", ""], leads=leads).axes[0].collections
        if not getattr(contour, "filled", True)
    ]
    assert lines
    for contour in lines:
        np.testing.assert_allclose(contour.get_paths()[0].vertices[:, 0][1:-1], 0.25)


def test_many_classes_are_hatched_and_one_class_has_no_boundary():
    many = regions(np.arange(10).reshape(2, 5), anchor_names=["", ""]).legends[0].get_patches()
    looks = [(patch.get_facecolor(), patch.get_hatch()) for patch in many]
    assert len(set(looks)) == 10
    one = regions(np.zeros((2, 3), dtype=int), anchor_names=["", ""])
    assert not [contour for contour in one.axes[0].collections if not getattr(contour, "filled", True)]


def test_the_path_is_drawn():
    figure = regions([[0, 1], [0, 1]], anchor_names=["a", "b"], path=[[0, 0], [0.5, 0.2], [1, 0]])
    line = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert list(line.get_xdata()) == [0, 0.5, 1]
    assert line.get_color() == INK


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": np.zeros((3, 2)), "anchor_names": ["a", "b"]}, r"predictions must have shape"),
        ({"predictions": np.zeros((2, 3)), "anchor_names": ["a"]}, r"anchors must be at most 3 pairs"),
        ({"predictions": np.zeros((2, 3)), "anchor_names": ["a", "b"], "leads": [1.0]}, r"leads must have"),
    ],
)
def test_regions_that_do_not_fit(arguments, message):
    with pytest.raises(UserError, match=message):
        plots.decision_regions([0, 1, 2], [0, 1], anchors=[[0, 0], [1, 1]], **arguments)
