"""How accuracy falls as the attacker may change more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK, MUTED, PALETTE, as_array, new_figure, polish

__all__ = ["robustness_curve_figure"]

_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")


def robustness_curve_figure(
    radii: Any,
    accuracy: Any | Mapping[str, Any],
    *,
    intervals: Any | Mapping[str, Any] | None = None,
    natural_accuracy: float | None = None,
    norm: str | None = "linf",
    ylabel: str = "accuracy",
) -> Figure:
    """Accuracy under attack against the attack's radius, one curve an attack.

    Below, the radius is in pixel units of [0, 1]; above, in grey levels of 255.

    Args:
        radii: shape (m,), increasing, in pixel units.
        accuracy: shape (m,), in [0, 1]; or several such series by name.
        intervals: shape (m, 2), lower and upper ends, drawn as a band; or several by name.
        natural_accuracy: accuracy without an attack, drawn at radius 0.
        norm: of the radius, for the label of the axis; None: left open.
        ylabel: what the series are a share of; under a targeted attack, points that don't get to the target.

    Raises:
        UserError: a series has another length than ``radii``.

    Example:
        >>> figure = robustness_curve_figure([0.1, 0.2], [0.6, 0.2], natural_accuracy=0.99)
        >>> figure.axes[0].lines[0].get_xydata().tolist()
        [[0.0, 0.99], [0.1, 0.6], [0.2, 0.2]]
    """
    series: Mapping[str, Any] = accuracy if isinstance(accuracy, Mapping) else {"": accuracy}
    bands = {} if intervals is None else intervals if isinstance(intervals, Mapping) else {"": intervals}
    places = as_array(radii).astype(np.float64)
    figure = new_figure(height=3.6)
    radius = "radius eps" if norm is None else f"radius eps ({norm})"
    axes = polish(figure.subplots(), xlabel=f"{radius}, pixel units", ylabel=ylabel, grid="both")
    for number, (name, values) in enumerate(series.items()):
        heights = as_array(values)
        if heights.shape != places.shape:
            raise UserError(f"accuracy {name!r} must have one value per radius {places.shape}, got {heights.shape}")
        _curve(axes, number, name, places, heights, bands.get(name), natural_accuracy)
    if natural_accuracy is not None:
        axes.plot([0], [natural_accuracy], "o", color=INK, markersize=6, zorder=4, clip_on=False)
        shown = f"{100 * natural_accuracy:.1f} % without attack"
        axes.annotate(shown, (0, natural_accuracy), (8, 5), textcoords="offset points", fontsize=9, color=INK)
    largest = float(places.max()) if places.size and places.max() > 0 else 1.0
    axes.set_xlim(0, 1.02 * largest)
    axes.set_ylim(-0.03, 1.1)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    _grey_levels(axes)
    if len(series) > 1:
        axes.legend(fontsize=9, frameon=False, labelcolor=INK)
    return figure


def _curve(
    axes: Axes, number: int, name: str, places: Any, heights: Any, band: Any | None, natural: float | None
) -> None:
    colour, dashes = PALETTE[number % len(PALETTE)], _DASHES[number % len(_DASHES)]
    if natural is not None and (not places.size or places[0] > 0):
        places, heights = np.append(0.0, places), np.append(natural, heights)
    marker = _MARKERS[number % len(_MARKERS)]
    axes.plot(places, heights, color=colour, linewidth=1.8, ls=dashes, marker=marker, markersize=4, label=name)
    if band is not None:
        ends = as_array(band)
        measured = places[len(places) - len(ends) :]
        axes.fill_between(measured, ends[:, 0], ends[:, 1], color=colour, alpha=0.15, linewidth=0)


def _grey_levels(axes: Axes) -> None:
    """A second scale on top."""
    scales = lambda eps: np.multiply(eps, 255), lambda level: np.divide(level, 255)
    above = axes.secondary_xaxis("top", functions=scales)
    above.set_xlabel("grey levels of 255", fontsize=9, color=MUTED)
    above.tick_params(labelsize=9, colors=MUTED, length=0)
    above.spines["top"].set_visible(False)
