"""Adversarial paths in pictures: lengths, ends, a trace, and the plane that it lies on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from lightning_poison.errors import UserError
from lightning_poison.plots.images import as_pictures, close_rows, show_picture, title_size
from lightning_poison.plots.style import INK, PALETTE, WIDTH, as_array, class_name, new_figure, polish, whole_ticks

__all__ = ["decision_regions", "path_ends", "path_length_histogram", "path_trace"]

_MOST_BINS = 40
_HATCHES = ("", "///", "...", "xxx")  # a second round of the colours, and a third
_MARKERS = ("o", "s", "^")
_PALE = 0.45  # share of the colour in a region; the rest is white


# --- lengths ----------------------------------------------------------------------------------------------------------


def path_length_histogram(
    lengths: Any,
    labels: Any | None = None,
    *,
    reached: Any | None = None,
    class_names: Sequence[str] | None = None,
    xlabel: str = "steps until the prediction flips",
) -> Figure:
    """Histograms of adversarial path lengths, one panel per class, with the median of each marked.

    All panels share their bins and both axes, so that heights and positions compare. Points whose path never flipped
    the prediction are left out of the bars and of the median, and counted in the panel's title.

    Args:
        lengths: shape (n,), steps.
        labels: shape (n,), the class of each point; None: one panel for all.
        reached: shape (n,), bool, whether the path flipped the prediction; None: all did.
        class_names: name of each class; None: its number.
        xlabel: what a length is.

    Source: "Crafting Label Noise to Increase Adversarial Vulnerability in Deep Learning Models" (MSc thesis, Oxford
    2021), Figures 4.6 (a) and 4.7.

    Example:
        >>> figure = path_length_histogram([3, 4, 4, 9], [0, 0, 0, 1])
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['class 0', 'class 1']
    """
    steps = as_array(lengths)
    flipped = np.ones(steps.shape, dtype=bool) if reached is None else as_array(reached).astype(bool)
    groups = _groups(steps.shape, labels, class_names)
    edges = _integer_bins(steps[flipped])
    columns = 1 if len(groups) <= 2 else 2
    rows = math.ceil(len(groups) / columns)
    figure = new_figure(height=0.7 + (1.9 if len(groups) <= 2 else 1.3) * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, members) in zip(panels, groups, strict=False):
        _panel(axes, steps[members & flipped], edges, name, int((members & ~flipped).sum()))
    for axes in panels[len(groups) :]:
        axes.remove()
    figure.supxlabel(xlabel, fontsize=9, color=INK)
    figure.supylabel("points", fontsize=9, color=INK)
    return figure


def _groups(
    shape: tuple[int, ...], labels: Any | None, class_names: Sequence[str] | None
) -> list[tuple[str, NDArray[np.bool_]]]:
    if labels is None:
        return [("all points", np.ones(shape, dtype=bool))]
    classes = as_array(labels)
    return [(class_name(int(number), class_names), classes == number) for number in np.unique(classes)]


def _integer_bins(lengths: NDArray[Any]) -> NDArray[np.float64]:
    """Bin edges halfway between whole numbers; at most ``_MOST_BINS`` bins of equal, whole width."""
    low, high = (int(lengths.min()), int(lengths.max())) if lengths.size else (0, 1)
    width = max(1, math.ceil((high - low + 1) / _MOST_BINS))
    return np.arange(low, high + width + 1, width, dtype=np.float64) - 0.5


def _panel(axes: Axes, lengths: NDArray[Any], edges: NDArray[np.float64], name: str, missed: int) -> None:
    axes.hist(lengths, bins=edges, color=PALETTE[0], alpha=0.85, rwidth=0.92)  # type: ignore[arg-type]
    note = f", {missed:,} never flip" if missed else ""
    polish(axes, title=f"{name}{note}")
    whole_ticks(axes)
    if lengths.size:
        median = float(np.median(lengths))
        axes.axvline(median, color=PALETTE[1], linewidth=1.6)
        axes.text(
            0.99,
            0.93,
            f"median {median:g}",
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=9,
            color=PALETTE[1],
        )


# --- ends -------------------------------------------------------------------------------------------------------------


def path_ends(
    starts: Any,
    ends: Any,
    *,
    start_titles: Sequence[str] | None = None,
    end_titles: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
) -> Figure:
    """Start, end and their difference side by side, one or several paths in a row.

    Start and end are clipped to [0, 1]. All differences share one scale, from the largest decrease (blue) to the
    largest increase (red); in colour images no change is middle grey.

    Args:
        starts: shape (n, H, W), (n, 1, H, W) or (n, 3, H, W), in [0, 1].
        ends: of the same shape; may leave [0, 1].
        start_titles: a short text above each start.
        end_titles: a short text above each end.
        row_labels: a text to the left of each row; the paths are dealt into that many rows. None: one path a row.

    Raises:
        UserError: the shapes differ or are none of those, or the paths cannot be dealt evenly.

    Example:
        >>> figure = path_ends(np.zeros((2, 4, 4)), np.full((2, 4, 4), 0.5), row_labels=["class 0"])
        >>> len([axes for axes in figure.axes if axes.images])
        6
    """
    first, last = (as_array(values).astype(np.float64) for values in (starts, ends))
    if first.shape != last.shape or not len(first):
        raise UserError(f"starts and ends must have one shape, not empty, got {first.shape} and {last.shape}")
    rows = len(row_labels) if row_labels else len(first)
    across, rest = divmod(len(first), rows)
    if rest:
        raise UserError(f"row_labels must divide {len(first)} paths evenly, got {rows} rows")
    scale = float(np.abs(last - first).max()) or 1.0
    columns = [as_pictures(first), as_pictures(last), as_pictures((last - first) / scale, low=-1.0)]
    titles = [
        list(start_titles or [""] * len(first)),
        list(end_titles or [""] * len(first)),
        ["change"] * across + [""] * (len(first) - across),
    ]
    size = title_size([title for part in titles for title in part], (WIDTH - 0.7) / (3.1 * across))
    figure, cells = _layout(columns[0][0].shape, rows, across, labelled=row_labels is not None)
    for number in range(len(first)):
        row, place = divmod(number, across)
        for part in range(3):
            axes = cells[row, 4 * place + part]
            show_picture(axes, columns[part][number], titles[part][number], size, signed=part == 2)
        if row_labels and place == 0:
            axes = cells[row, 0]
            axes.set_ylabel(row_labels[row], fontsize=9, color=INK, rotation=0, ha="right", va="center", labelpad=8)
    return figure


def _layout(shape: tuple[int, ...], rows: int, across: int, *, labelled: bool) -> tuple[Figure, Any]:
    """Three columns a path, and a narrow empty one between paths."""
    margin = 0.7 * labelled
    widths = ([1.0, 1.0, 1.0, 0.12] * across)[:-1]
    cell = min(1.2, (WIDTH - margin) / sum(widths))
    height = rows * (cell * shape[0] / shape[1] + 0.1) + 0.15
    figure = close_rows(new_figure(height=height, width=cell * sum(widths) + margin))
    cells = figure.subplots(rows, len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})
    for gap in cells[:, 3::4].ravel():
        gap.axis("off")
    return figure, cells


# --- a trace ----------------------------------------------------------------------------------------------------------


def path_trace(
    images: Any,
    steps: Any,
    label_probability: Any,
    goal_probability: Any,
    *,
    label_name: str = "label",
    goal_name: str = "goal",
) -> Figure:
    """Images along a path, values clipped to [0, 1], above the probabilities of the class left and the class reached.

    Args:
        images: shape (k, H, W), (k, 1, H, W) or (k, 3, H, W): some points of the path.
        steps: shape (k,), which points they are: 0 is the start.
        label_probability: shape (L + 1,), in [0, 1], at every point.
        goal_probability: shape (L + 1,), in [0, 1].
        label_name: what to call the class that the path leaves.
        goal_name: what to call the class that it reaches.

    Raises:
        UserError: the shapes don't fit.

    Example:
        >>> figure = path_trace(np.zeros((2, 4, 4)), [0, 2], [0.9, 0.6, 0.2], [0.1, 0.4, 0.8])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['start', 'step 2']
    """
    pictures, shown = as_pictures(images), as_array(steps).astype(int).tolist()
    curves = [as_array(label_probability), as_array(goal_probability)]
    if not shown or len(shown) != len(pictures):
        raise UserError(f"steps must name the point of each of {len(pictures)} images, got {len(shown)}")
    if curves[0].shape != curves[1].shape or max(shown) >= len(curves[0]):
        raise UserError(f"probabilities must have one value per point, got {len(curves[0])} and {len(curves[1])}")
    cell = min(1.1, WIDTH / len(shown))
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    upper = cell * aspect + 0.25
    figure = new_figure(height=upper + 1.9)
    halves = figure.add_gridspec(2, 1, height_ratios=[upper, 1.9])
    above, below = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    for axes, step, picture in zip(above.subplots(1, len(shown), squeeze=False).ravel(), shown, pictures, strict=True):
        show_picture(axes, picture, f"step {step}" if step else "start", 8.5)
    axes = polish(below.subplots(), xlabel="steps", ylabel="probability", grid="both")
    places = np.arange(len(curves[0]))
    for curve, name, colour, dashes in zip(curves, (label_name, goal_name), PALETTE, ("-", "--"), strict=False):
        axes.plot(places, curve, dashes, color=colour, linewidth=2, label=name)
        axes.plot(places[shown], curve[shown], "o", color=colour, markersize=4.5)
    axes.set_ylim(-0.04, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    whole_ticks(axes, 8)
    axes.legend(fontsize=9, frameon=False, labelcolor=INK, loc="center left")
    return figure


# --- decision regions -------------------------------------------------------------------------------------------------


def decision_regions(
    x: Any,
    y: Any,
    predictions: Any,
    *,
    anchors: Any,
    anchor_names: Sequence[str],
    leads: Any | None = None,
    path: Any | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Regions of one prediction each, in a colour of its own, with their boundaries and the points that are named.

    Args:
        x: shape (W,), rising by equal steps.
        y: shape (H,), rising by the same steps.
        predictions: shape (H, W), the predicted class of each cell.
        anchors: shape (k, 2), k <= 3: coordinates of the points to mark.
        anchor_names: what to call them.
        leads: shape (H, W): how far the highest score is above the second; boundaries between cells are then
            smooth, and without it in steps.
        path: shape (L + 1, 2): coordinates of a path to draw.
        class_names: name of each class; None: its number.

    Raises:
        UserError: the shapes don't fit.

    Example:
        >>> figure = decision_regions([0, 1], [0, 1], [[3, 3], [3, 7]], anchors=[[0, 0]], anchor_names=["point"])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['class 3', 'class 7']
    """
    across, up, cells = as_array(x).astype(float), as_array(y).astype(float), as_array(predictions)
    marks = as_array(anchors).astype(float)
    if cells.shape != (len(up), len(across)) or min(cells.shape) < 2:
        raise UserError(f"predictions must have shape (len(y), len(x)), at least (2, 2), got {cells.shape}")
    if marks.shape != (len(anchor_names), 2) or len(marks) > len(_MARKERS):
        raise UserError(f"anchors must be at most 3 pairs, one for each name, got shape {marks.shape}")
    sure = np.ones(cells.shape) if leads is None else as_array(leads).astype(float)
    if sure.shape != cells.shape:
        raise UserError(f"leads must have the predictions' shape {cells.shape}, got {sure.shape}")
    cell = across[1] - across[0]
    box = (across[0] - cell / 2, across[-1] + cell / 2, up[0] - cell / 2, up[-1] + cell / 2)
    height = float(np.clip((WIDTH - 0.6) * (box[3] - box[2]) / (box[1] - box[0]), 1.8, 5.2)) + 0.9
    figure = new_figure(height=height)
    axes = polish(figure.subplots(), xlabel="pixel distance (l2)", ylabel="pixel distance (l2)", grid="")
    axes.imshow(np.full(cells.shape, 0.0), cmap="gray_r", extent=box, origin="lower")  # the ground, for the limits
    handles = []
    for place, number in enumerate(np.unique(cells).tolist()):
        # Positive within the region and negative outside, by the margin: 0 where two classes tie.
        inside = np.where(cells == number, sure, -sure)
        patch = Patch(
            facecolor=_pale(PALETTE[place % len(PALETTE)]),
            edgecolor=INK,
            hatch=_HATCHES[place // len(PALETTE) % len(_HATCHES)],
            label=class_name(number, class_names),
        )
        _region(axes, (across, up), inside, box, patch)
        handles.append(patch)
    if path is not None:
        way = as_array(path).astype(float)
        outline = [withStroke(linewidth=4.0, foreground="white")]
        axes.plot(way[:, 0], way[:, 1], color=INK, linewidth=1.8, path_effects=outline, zorder=4)
    _anchors(axes, marks, anchor_names, box)
    axes.set_aspect("equal")
    axes.set_xlim(box[0], box[1])
    axes.set_ylim(box[2], box[3])
    figure.legend(
        handles=handles, loc="outside upper left", ncols=min(4, len(handles)), fontsize=9, frameon=False, labelcolor=INK
    )
    return figure


def _region(
    axes: Axes,
    places: tuple[NDArray[Any], NDArray[Any]],
    inside: NDArray[np.float64],
    box: tuple[float, float, float, float],
    patch: Patch,
) -> None:
    """Fill where ``inside`` is positive, to the edges of the outermost cells, and draw the boundary."""
    # One more ring of cells, so that the region reaches from the outermost centres to their edges.
    across, up = (
        np.concatenate([[low], place, [high]]) for place, low, high in zip(places, box[::2], box[1::2], strict=True)
    )
    wide = np.pad(inside, 1, mode="edge")
    if wide.max() <= 0:
        return
    hatches = [patch.get_hatch() or ""]
    axes.contourf(across, up, wide, levels=[0, wide.max() + 1], colors=[patch.get_facecolor()], hatches=hatches)
    if wide.min() < 0:
        axes.contour(across, up, wide, levels=[0], colors=INK, linewidths=0.8)


def _anchors(axes: Axes, marks: NDArray[Any], names: Sequence[str], box: tuple[float, float, float, float]) -> None:
    """Mark the points and name them on the side where there is room: away from the others."""
    middle = (box[0] + box[1]) / 2
    level = float(marks[:, 1].mean()) if len(marks) else 0.0
    for (across, up), name, marker in zip(marks.tolist(), names, _MARKERS, strict=False):
        axes.plot(across, up, marker, color=INK, markeredgecolor="white", markersize=8, zorder=5)
        right, above = across <= middle, up >= level
        axes.annotate(
            name,
            (across, up),
            xytext=(6 if right else -6, 7 if above else -7),
            textcoords="offset points",
            ha="left" if right else "right",
            va="bottom" if above else "top",
            fontsize=9,
            color=INK,
            zorder=6,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (1 - _PALE + _PALE * part for part in to_rgb(colour))
    return red, green, blue
