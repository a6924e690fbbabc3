"""What a network predicts on a plane of input space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK, PALETTE, WIDTH, as_array, class_name, new_figure, polish

__all__ = ["decision_regions"]

_HATCHES = ("", "///", "...", "xxx")  # a second round of the colours, and a third
_MARKERS = ("o", "s", "^")
_PALE = 0.45  # share of the colour in a region; the rest is white


def decision_regions(
    x: Any,
    y: Any,
    predictions: Any,
    *,
    anchors: Any,
    anchor_names: Sequence[str],
    leads: Any | None = None,
    path: Any | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Regions of one prediction each, in a colour of its own, with their boundaries and the points that are named.

    Args:
        x: shape (W,), rising by equal steps.
        y: shape (H,), rising by the same steps.
        predictions: shape (H, W), the predicted class of each cell.
        anchors: shape (k, 2), k <= 3: coordinates of the points to mark.
        anchor_names: what to call them.
        leads: shape (H, W): how far the highest score is above the second; boundaries between cells are then
            smooth, and without it in steps.
        path: shape (L + 1, 2): coordinates of a path to draw.
        class_names: name of each class; None: its number.

    Raises:
        UserError: the shapes don't fit.

    Example:
        >>> figure = decision_regions([0, 1], [0, 1], [[3, 3], [3, 7]], anchors=[[0, 0]], anchor_names=["point"])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['class 3', 'class 7']
    """
    across, up, cells = as_array(x).astype(float), as_array(y).astype(float), as_array(predictions)
    marks = as_array(anchors).astype(float)
    if cells.shape != (len(up), len(across)) or min(cells.shape) < 2:
        raise UserError(f"predictions must have shape (len(y), len(x)), at least (2, 2), got {cells.shape}")
    if marks.shape != (len(anchor_names), 2) or len(marks) > len(_MARKERS):
        raise UserError(f"anchors must be at most 3 pairs, one for each name, got shape {marks.shape}")
    sure = np.ones(cells.shape) if leads is None else as_array(leads).astype(float)
    if sure.shape != cells.shape:
        raise UserError(f"leads must have the predictions' shape {cells.shape}, got {sure.shape}")
    cell = across[1] - across[0]
    box = (across[0] - cell / 2, across[-1] + cell / 2, up[0] - cell / 2, up[-1] + cell / 2)
    height = float(np.clip((WIDTH - 0.6) * (box[3] - box[2]) / (box[1] - box[0]), 1.8, 5.2)) + 0.9
    figure = new_figure(height=height)
    axes = polish(figure.subplots(), xlabel="pixel distance (l2)", ylabel="pixel distance (l2)", grid="")
    axes.imshow(np.full(cells.shape, 0.0), cmap="gray_r", extent=box, origin="lower")  # the ground, for the limits
    handles = []
    for place, number in enumerate(np.unique(cells).tolist()):
        # Positive within the region and negative outside, by the margin: 0 where two classes tie.
        inside = np.where(cells == number, sure, -sure)
        patch = Patch(
            facecolor=_pale(PALETTE[place % len(PALETTE)]),
            edgecolor=INK,
            hatch=_HATCHES[place // len(PALETTE) % len(_HATCHES)],
            label=class_name(number, class_names),
        )
        _region(axes, (across, up), inside, box, patch)
        handles.append(patch)
    if path is not None:
        way = as_array(path).astype(float)
        outline = [withStroke(linewidth=4.0, foreground="white")]
        axes.plot(way[:, 0], way[:, 1], color=INK, linewidth=1.8, path_effects=outline, zorder=4)
    _anchors(axes, marks, anchor_names, box)
    axes.set_aspect("equal")
    axes.set_xlim(box[0], box[1])
    axes.set_ylim(box[2], box[3])
    figure.legend(
        handles=handles, loc="outside upper left", ncols=min(4, len(handles)), fontsize=9, frameon=False, labelcolor=INK
    )
    return figure


def _region(
    axes: Axes,
    places: tuple[NDArray[Any], NDArray[Any]],
    inside: NDArray[np.float64],
    box: tuple[float, float, float, float],
    patch: Patch,
) -> None:
    """Fill where ``inside`` is positive, to the edges of the outermost cells, and draw the boundary."""
    # One more ring of cells, so that the region reaches from the outermost centres to their edges.
    across, up = (
        np.concatenate([[low], place, [high]]) for place, low, high in zip(places, box[::2], box[1::2], strict=True)
    )
    wide = np.pad(inside, 1, mode="edge")
    if wide.max() <= 0:
        return
    hatches = [patch.get_hatch() or ""]
    axes.contourf(across, up, wide, levels=[0, wide.max() + 1], colors=[patch.get_facecolor()], hatches=hatches)
    if wide.min() < 0:
        axes.contour(across, up, wide, levels=[0], colors=INK, linewidths=0.8)


def _anchors(axes: Axes, marks: NDArray[Any], names: Sequence[str], box: tuple[float, float, float, float]) -> None:
    """Mark the points and name them on the side where there is room: away from the others."""
    middle = (box[0] + box[1]) / 2
    level = float(marks[:, 1].mean()) if len(marks) else 0.0
    for (across, up), name, marker in zip(marks.tolist(), names, _MARKERS, strict=False):
        axes.plot(across, up, marker, color=INK, markeredgecolor="white", markersize=8, zorder=5)
        right, above = across <= middle, up >= level
        axes.annotate(
            name,
            (across, up),
            xytext=(6 if right else -6, 7 if above else -7),
            textcoords="offset points",
            ha="left" if right else "right",
            va="bottom" if above else "top",
            fontsize=9,
            color=INK,
            zorder=6,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (1 - _PALE + _PALE * part for part in to_rgb(colour))
    return red, green, blue
