"""How far the decision boundary is from the points of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_poison.plots.style import INK, PALETTE, as_array, class_name, new_figure, polish, whole_ticks

__all__ = ["path_length_histogram"]

_MOST_BINS = 40


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
