"""Where adversarial paths begin, where they end, and what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_poison.errors import UserError
from lightning_poison.plots.images import as_pictures, close_rows, show_picture, title_size
from lightning_poison.plots.style import INK, WIDTH, as_array, new_figure

__all__ = ["path_ends"]


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
