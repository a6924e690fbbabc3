"""What a smoothed classifier must be sure of to withstand r changed labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK, PALETTE, as_array, new_figure, polish

__all__ = ["required_margin_figure"]

_DASHES = ("-", "--", "-.", ":")
_SMALLEST = -600.0  # logarithm of what an axis can still show


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
        style = {"color": PALETTE[number % len(PALETTE)], "ls": _DASHES[number % 4], "linewidth": 2}
        left.plot(places, -np.expm1(errors), label=name, **style)
        shown = errors >= _SMALLEST
        right.plot(np.exp(errors[shown]), places[shown], label=name, **style)
    right.set_xscale("log")
    right.invert_xaxis()
    right.set_xlim(left=1)  # it is a probability
    if len(series) > 1:
        left.legend(fontsize=9, frameon=False, labelcolor=INK)
    return figure
