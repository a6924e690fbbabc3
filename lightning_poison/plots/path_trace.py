"""One adversarial path: what it looks like, and what the network believes on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_poison.errors import UserError
from lightning_poison.plots.images import as_pictures, show_picture
from lightning_poison.plots.style import INK, PALETTE, WIDTH, as_array, new_figure, polish, whole_ticks

__all__ = ["path_trace"]


def path_trace(
    images: Any,
    steps: Any,
    label_probability: Any,
    goal_probability: Any,
    *,
    label_name: str = "label",
    goal_name: str = "goal",
) -> Figure:
    """Images along a path, values clipped to [0, 1], above the probabilities of the class left and the class reached.

    Args:
        images: shape (k, H, W), (k, 1, H, W) or (k, 3, H, W): some points of the path.
        steps: shape (k,), which points they are: 0 is the start.
        label_probability: shape (L + 1,), in [0, 1], at every point.
        goal_probability: shape (L + 1,), in [0, 1].
        label_name: what to call the class that the path leaves.
        goal_name: what to call the class that it reaches.

    Raises:
        UserError: the shapes don't fit.

    Example:
        >>> figure = path_trace(np.zeros((2, 4, 4)), [0, 2], [0.9, 0.6, 0.2], [0.1, 0.4, 0.8])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['start', 'step 2']
    """
    pictures, shown = as_pictures(images), as_array(steps).astype(int).tolist()
    curves = [as_array(label_probability), as_array(goal_probability)]
    if not shown or len(shown) != len(pictures):
        raise UserError(f"steps must name the point of each of {len(pictures)} images, got {len(shown)}")
    if curves[0].shape != curves[1].shape or max(shown) >= len(curves[0]):
        raise UserError(f"probabilities must have one value per point, got {len(curves[0])} and {len(curves[1])}")
    cell = min(1.1, WIDTH / len(shown))
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    upper = cell * aspect + 0.25
    figure = new_figure(height=upper + 1.9)
    halves = figure.add_gridspec(2, 1, height_ratios=[upper, 1.9])
    above, below = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    for axes, step, picture in zip(above.subplots(1, len(shown), squeeze=False).ravel(), shown, pictures, strict=True):
        show_picture(axes, picture, f"step {step}" if step else "start", 8.5)
    axes = polish(below.subplots(), xlabel="steps", ylabel="probability", grid="both")
    places = np.arange(len(curves[0]))
    for curve, name, colour, dashes in zip(curves, (label_name, goal_name), PALETTE, ("-", "--"), strict=False):
        axes.plot(places, curve, dashes, color=colour, linewidth=2, label=name)
        axes.plot(places[shown], curve[shown], "o", color=colour, markersize=4.5)
    axes.set_ylim(-0.04, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    whole_ticks(axes, 8)
    axes.legend(fontsize=9, frameon=False, labelcolor=INK, loc="center left")
    return figure
