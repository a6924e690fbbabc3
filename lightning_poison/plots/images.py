"""Pictures side by side, and how many labels were flipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK, MUTED, WIDTH, as_array, class_name, new_figure, polish

__all__ = ["as_pictures", "close_rows", "flip_matrix", "image_grid", "show_picture", "title_size"]


def image_grid(
    images: Any,
    titles: Sequence[str] | None = None,
    *,
    row_labels: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Show images in rows, values clipped to [0, 1].

    Args:
        images: shape (n, H, W), (n, 1, H, W), (n, 3, H, W); a float in [0, 1], or uint8 in [0, 255].
        titles: a short text above each image.
        row_labels: a text to the left of each row; the images are dealt into that many rows.
        columns: images in a row; None: from ``row_labels``, else at most 8.

    Raises:
        UserError: the shape is not one of those, or the number of titles or row labels does not fit.

    Example:
        >>> figure = image_grid(np.zeros((6, 1, 8, 8)), row_labels=["closest", "farthest"])
        >>> len(figure.axes)
        6
    """
    pictures = as_pictures(images)
    count = len(pictures)
    if titles is not None and len(titles) != count:
        raise UserError(f"titles must have one entry per image ({count}), got {len(titles)}")
    if columns is None:
        columns = min(8, max(1, count)) if not row_labels else max(1, math.ceil(count / len(row_labels)))
    rows = max(1, math.ceil(count / columns))
    if row_labels is not None and len(row_labels) != rows:
        raise UserError(f"row_labels must have one entry per row ({rows}), got {len(row_labels)}")
    figure = _grid_figure(pictures, rows, columns, titled=titles is not None, labelled=row_labels is not None)
    size = title_size(titles or (), figure.get_figwidth() / columns)
    for number, axes in enumerate(_cells(figure, rows, columns, count)):
        show_picture(axes, pictures[number], "" if titles is None else titles[number], size)
        if row_labels is not None and number % columns == 0:
            axes.set_ylabel(
                row_labels[number // columns], fontsize=9, color=INK, rotation=0, ha="right", va="center", labelpad=8
            )
    return figure


def as_pictures(images: Any, low: float = 0.0) -> list[NDArray[np.float64]]:
    """Each image as (H, W) or (H, W, 3), clipped to [``low``, 1].

    Raises:
        UserError: the shape is none of those that :func:`image_grid` takes.
    """
    array = as_array(images)
    scaled = array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)
    if scaled.ndim == 4 and scaled.shape[1] in (1, 3):
        scaled = scaled[:, 0] if scaled.shape[1] == 1 else scaled.transpose(0, 2, 3, 1)
    elif scaled.ndim != 3:
        raise UserError(f"images must have shape (n, H, W), (n, 1, H, W) or (n, 3, H, W), got {tuple(array.shape)}")
    return list(np.clip(np.nan_to_num(scaled), low, 1.0))


def _grid_figure(
    pictures: list[NDArray[np.float64]], rows: int, columns: int, *, titled: bool, labelled: bool
) -> Figure:
    aspect = pictures[0].shape[0] / pictures[0].shape[1] if pictures else 1.0
    cell = min(1.4, (WIDTH - 1.0 * labelled) / columns)
    height = rows * (cell * aspect + 0.18 * titled) + 0.1
    return close_rows(new_figure(height=height, width=columns * cell + 1.0 * labelled))


def close_rows(figure: Figure) -> Figure:
    """Leave little room between pictures."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    return figure


def _cells(figure: Figure, rows: int, columns: int, count: int) -> list[Axes]:
    cells = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in cells[count:]:
        axes.remove()
    return cells[:count]


def title_size(titles: Sequence[str], cell: float) -> float:
    """Points at which the longest title stays within a cell of so many inches; a letter is 0.6 of its size wide."""
    longest = max((len(title) for title in titles), default=1) or 1
    return float(np.clip(0.7 * cell * 72 / (0.6 * longest), 4.0, 8.0))


def show_picture(
    axes: Axes, picture: NDArray[np.float64], title: str = "", size: float = 8.0, *, signed: bool = False
) -> None:
    """Draw a picture of :func:`as_pictures` without ticks.

    Args:
        axes: where.
        picture: shape (H, W) or (H, W, 3).
        title: shown above, in letters of ``size`` points.
        size: of the title.
        signed: values in [-1, 1]: below 0 blue, above 0 red, or where there are colours around middle grey.
    """
    if signed and picture.ndim == 2:
        axes.imshow(picture, cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest")
    else:
        shown = (picture + 1) / 2 if signed else picture
        axes.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#AEB7C1")
    if title:
        axes.set_title(title, fontsize=size, color=MUTED, pad=3)


# --- flips ------------------------------------------------------------------------------------------------------------


def flip_matrix(
    old_labels: Any, new_labels: Any, num_classes: int | None = None, *, class_names: Sequence[str] | None = None
) -> Figure:
    """Counts of flips by clean label (rows) and flipped label (columns).

    Args:
        old_labels: shape (b,), the clean labels.
        new_labels: shape (b,), the flipped labels.
        num_classes: rows and columns of the matrix; None: as many as occur.
        class_names: name of each class; None: its number.

    Example:
        >>> flip_matrix([0, 0, 1], [1, 1, 2], 3).axes[0].images[0].get_array().tolist()
        [[0, 2, 0], [0, 0, 1], [0, 0, 0]]
    """
    old, new = as_array(old_labels).astype(np.int64), as_array(new_labels).astype(np.int64)
    largest = max((int(labels.max()) for labels in (old, new) if labels.size), default=0)
    size = max(num_classes or 0, largest + 1)
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (old, new), 1)

    side = min(5.2, 1.4 + 0.36 * size)
    figure = new_figure(height=side, width=side + 0.2)
    axes = polish(figure.subplots(), xlabel="flipped label", ylabel="clean label", grid="")
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, int(counts.max()) * 1.25))
    names = [class_name(number, class_names).removeprefix("class ") for number in range(size)]
    if size <= 20:
        axes.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(size), names)
        for row, column in zip(*np.nonzero(counts), strict=True):
            count = int(counts[row, column])
            colour = "white" if count > 0.7 * counts.max() else INK
            axes.text(float(column), float(row), str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#E3E7EC", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    return figure
