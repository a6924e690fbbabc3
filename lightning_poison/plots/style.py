"""The look that all figures share: colours that the colour-blind can tell apart, a light grid, readable letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

__all__ = ["GRID", "INK", "MUTED", "PALETTE", "WIDTH", "as_array", "class_name", "new_figure", "polish", "whole_ticks"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4B4B4B")
"""The colours of Okabe and Ito (2008), without the yellow that white paper swallows."""
INK, MUTED, GRID = "#1F2933", "#5B6773", "#E3E7EC"
WIDTH = 5.6
"""Width of a figure in inches: letters of 9 points stay readable when a phone shows it."""


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of ``width`` x ``height`` inches that draws through Agg."""
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def polish(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "", grid: str = "y") -> Axes:
    """Give ``axes`` the common look; ``grid`` is "x", "y", "both" or empty for none."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=9, color=MUTED)
    axes.set_ylabel(ylabel, fontsize=9, color=MUTED)
    axes.tick_params(labelsize=9, colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#AEB7C1")
    axes.set_axisbelow(True)
    for name in ("x", "y"):
        if grid in (name, "both"):
            axes.grid(axis=name, color=GRID, linewidth=0.8)
    return axes


def whole_ticks(axes: Axes, count: int = 6) -> None:
    """Let the horizontal axis show whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=count, integer=True))


def as_array(values: Any) -> NDArray[Any]:
    """A tensor, array or sequence as a NumPy array on the CPU."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    return np.asarray(detached)


def class_name(number: int, class_names: Sequence[str] | None) -> str:
    """The name of class ``number``, or "class 3" where it has none.

    Example:
        >>> class_name(1, ["cat", "dog"]), class_name(2, ["cat", "dog"])
        ('dog', 'class 2')
    """
    if class_names is not None and 0 <= number < len(class_names):
        return str(class_names[number])
    return f"class {number}"
