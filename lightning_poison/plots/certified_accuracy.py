"""What is still guaranteed after r changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK, PALETTE, as_array, new_figure, polish

__all__ = ["certified_accuracy_curve"]

_DASHES = ("-", "--", "-.", ":")


def certified_accuracy_curve(
    radii: Any,
    accuracy: Any | Mapping[str, Any],
    *,
    clean_accuracy: float | None = None,
    xlabel: str = "changed training labels r",
) -> Figure:
    """Step curve of certified accuracy against the radius.

    Certified accuracy never rises with r, so its value at a radius also holds at every smaller one: between two given
    radii the curve takes the value of the larger, which is a valid lower bound.

    Args:
        radii: shape (m,), increasing.
        accuracy: shape (m,), in [0, 1]; or several such series by name.
        clean_accuracy: drawn as a horizontal line.
        xlabel: what a radius counts.

    Raises:
        UserError: a series has another length than ``radii``.

    Example:
        >>> figure = certified_accuracy_curve([0, 10, 20], [0.99, 0.9, 0.0])
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [0.99, 0.9, 0.0]
    """
    series: Mapping[str, Any] = accuracy if isinstance(accuracy, Mapping) else {"certified accuracy": accuracy}
    places = as_array(radii)
    figure = new_figure(height=3.2)
    axes = polish(figure.subplots(), xlabel=xlabel, ylabel="certified accuracy", grid="both")
    for number, (name, values) in enumerate(series.items()):
        heights = as_array(values)
        if heights.shape != places.shape:
            raise UserError(f"accuracy {name!r} must have one value per radius {places.shape}, got {heights.shape}")
        colour = PALETTE[number % len(PALETTE)]
        axes.plot(places, heights, color=colour, linewidth=2, label=name, drawstyle="steps-pre", ls=_DASHES[number % 4])
        if len(series) == 1:
            axes.fill_between(places, heights, step="pre", color=colour, alpha=0.12, linewidth=0)
    if clean_accuracy is not None:
        axes.axhline(clean_accuracy, color=INK, linewidth=1, linestyle=":", label="accuracy without attack")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=float(places.min()) if places.size else 0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    if len(series) > 1 or clean_accuracy is not None:
        axes.legend(fontsize=9, frameon=False, labelcolor=INK)
    return figure
