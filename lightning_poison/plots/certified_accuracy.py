"""What is still guaranteed after r changes, and the margin that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK, MUTED, PALETTE, as_array, new_figure, polish

__all__ = ["certified_accuracy_curve", "required_margin_figure"]

_DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_MARGIN_DASHES = ("-", "--", "-.", ":")
_SMALLEST = -600.0  # logarithm of what an axis can still show


def certified_accuracy_curve(
    radii: Any,
    accuracy: Any | Mapping[str, Any],
    *,
    clean_accuracy: float | None = None,
    published: Mapping[str, Mapping[int, float]] | None = None,
    attacked: Mapping[str, Mapping[int, float]] | None = None,
    xlabel: str = "changed training labels r",
) -> Figure:
    """Step curve of certified accuracy against the radius.

    Certified accuracy never rises with r, so its value at a radius also holds at every smaller one: between two given
    radii the curve takes the value of the larger, which is a valid lower bound.

    Args:
        radii: shape (m,), increasing.
        accuracy: shape (m,), in [0, 1]; or several such series by name.
        clean_accuracy: drawn as a horizontal line.
        published: other people's figures by name, accuracy at a radius, drawn as marks.
        attacked: accuracy of undefended learners by name, at numbers of changes, drawn as dotted lines.
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
    figure = new_figure(height=3.2 + 0.16 * max(len(series) - 4, 0))
    axes = polish(figure.subplots(), xlabel=xlabel, ylabel="certified accuracy", grid="both")
    for number, (name, values) in enumerate(series.items()):
        heights = as_array(values)
        if heights.shape != places.shape:
            raise UserError(f"accuracy {name!r} must have one value per radius {places.shape}, got {heights.shape}")
        colour, dashes = PALETTE[number % len(PALETTE)], _DASHES[number % len(_DASHES)]
        axes.plot(places, heights, color=colour, linewidth=2, label=name, drawstyle="steps-pre", ls=dashes)
        if len(series) == 1:
            axes.fill_between(places, heights, step="pre", color=colour, alpha=0.12, linewidth=0)
    if clean_accuracy is not None:
        axes.axhline(clean_accuracy, color=INK, linewidth=1, linestyle=":", label="accuracy without attack")
    _others(axes, attacked or {}, published or {})
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=float(places.min()) if places.size else 0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    if len(axes.get_lines()) > 1:
        axes.legend(fontsize=9, frameon=False, labelcolor=INK)
    return figure


def _others(axes: Axes, attacked: Mapping[str, Mapping[int, float]], published: Mapping[str, Any]) -> None:
    """What is compared with: attacked learners and published figures."""
    for name, points in attacked.items():
        at = sorted(points)
        axes.plot(at, [points[r] for r in at], color=MUTED, linewidth=1.5, ls=":", drawstyle="steps-post", label=name)
    for number, (name, points) in enumerate(published.items()):
        at, marker = sorted(points), _MARKERS[number % len(_MARKERS)]
        axes.plot(
            at, [points[r] for r in at], marker, color=INK, markerfacecolor="white", label=name, zorder=4, clip_on=False
        )


def required_margin_figure(radii: Any, log_error: Any | Mapping[str, Any], *, title: str = "") -> Figure:
    """Two pictures of one relation (Rosenfeld et al., 2020, figure 5).

    Left, the margin that certifies r: the probability of any other prediction must be below the curve. Right the same
    inverted: how many changed labels a given probability certifies.

    Args:
        radii: shape (m,), increasing numbers r of changed labels.
        log_error: shape (m,), natural logarithm of the largest error probability 1 - p that certifies each radius; or
            several such series by name.
        title: of the left picture.

    Raises:
        UserError: a series has another length than ``radii``.

    Example:
        >>> figure = required_margin_figure([1, 2], {"KL": [-5.0, -9.0], "tight": [-3.0, -4.5]})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['required p', 'certified r']
    """
    series: Mapping[str, Any] = log_error if isinstance(log_error, Mapping) else {"": log_error}
    places = as_array(radii)
    figure = new_figure(height=3.0, width=7.2)
    left, right = figure.subplots(1, 2)
    polish(left, title=title, xlabel="changed training labels r", ylabel="required p", grid="both")
    polish(right, xlabel="error probability 1 - p", ylabel="certified r", grid="both")
    for number, (name, values) in enumerate(series.items()):
        errors = as_array(values).astype(np.float64)
        if errors.shape != places.shape:
            raise UserError(f"log_error {name!r} must have one value per radius {places.shape}, got {errors.shape}")
        style = {
            "color": PALETTE[number % len(PALETTE)],
            "ls": _MARGIN_DASHES[number % len(_MARGIN_DASHES)],
            "linewidth": 2,
        }
        left.plot(places, -np.expm1(errors), label=name, **style)
        shown = errors >= _SMALLEST
        right.plot(np.exp(errors[shown]), places[shown], label=name, **style)
    right.set_xscale("log")
    right.invert_xaxis()
    right.set_xlim(left=1)  # it is a probability
    if len(series) > 1:
        left.legend(fontsize=9, frameon=False, labelcolor=INK)
    return figure
