"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_poison.plots.style import INK, PALETTE, new_figure, polish

__all__ = ["comparison_bars"]


def comparison_bars(
    shares: Mapping[str, float], baseline: Mapping[str, float], *, names: tuple[str, str] = ("this run", "clean twin")
) -> Figure:
    """Horizontal bars of shares in [0, 1] of this run and of a baseline, for the labels that both have.

    Args:
        shares: value by label, top to bottom.
        baseline: the same of the other run.
        names: what to call the two.

    Example:
        >>> axes = comparison_bars({"accuracy": 0.98, "other": 1.0}, {"accuracy": 0.99}).axes[0]
        >>> [text.get_text() for text in axes.get_yticklabels()]
        ['accuracy']
    """
    labels = [label for label in shares if label in baseline]
    places = np.arange(len(labels), dtype=np.float64)
    figure = new_figure(height=0.9 + 0.62 * max(1, len(labels)))
    axes = polish(figure.subplots(), grid="x")
    for offset, name, values, colour in (
        (-0.2, names[0], shares, PALETTE[1]),
        (0.2, names[1], baseline, PALETTE[0]),
    ):
        widths = [values[label] for label in labels]
        bars = axes.barh(places + offset, widths, height=0.36, color=colour, label=name)
        axes.bar_label(bars, [f"{100 * width:.1f} %" for width in widths], padding=4, fontsize=9, color=INK)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    figure.legend(loc="outside upper left", ncols=2, fontsize=9, frameon=False, labelcolor=INK)
    return figure
