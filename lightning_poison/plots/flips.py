"""Which labels became which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_poison.plots.style import INK, as_array, class_name, new_figure, polish

__all__ = ["flip_matrix"]


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
