"""How a run went, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_poison.plots.style import INK, PALETTE, WIDTH, new_figure, polish, whole_ticks

__all__ = ["curve_groups", "training_curves"]

History = Mapping[str, Sequence[tuple[int, float]]]
_SHARES = ("Accuracy", "Poisons", "Certified accuracy")
_MOST_CURVES = 7


def training_curves(history: History, *, labels: Mapping[str, str] | None = None) -> Figure:
    """Curves of the epoch-end values, a panel per kind: accuracy, poisons, loss, path length, certified accuracy.

    Keys of no such kind are left out. Values that are not finite leave a gap.

    Args:
        history: by metric key, (epoch, value) in the order of the epochs.
        labels: what to call a key in the legend; None: the key.

    Example:
        >>> figure = training_curves({"val/acc": [(0, 0.5), (1, 0.9)], "train/loss": [(0, 1.0), (1, 0.2)]})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Accuracy', 'Loss']
    """
    panels = curve_groups(history)
    rows = max(1, math.ceil(len(panels) / 2))
    figure = new_figure(height=3.0 if len(panels) == 1 else 2.5 * rows, width=WIDTH if len(panels) == 1 else 8.0)
    grid = figure.add_gridspec(rows, 2)
    for number, (title, keys) in enumerate(panels.items()):
        alone = number + 1 == len(panels) and number % 2 == 0
        axes = figure.add_subplot(grid[number // 2, :] if alone else grid[number // 2, number % 2])
        _panel(axes, title, {(labels or {}).get(key, key): history[key] for key in keys})
    return figure


def curve_groups(history: History) -> dict[str, list[str]]:
    """Keys by the title of the panel that shows them, in a fixed order; at most seven a panel.

    Example:
        >>> curve_groups({"train/loss": [(0, 1.0)], "val/acc": [(0, 0.5)], "lr-Adam": [(0, 0.1)]})
        {'Accuracy': ['val/acc'], 'Loss': ['train/loss']}
    """
    titles = ("Accuracy", "Poisons", "Loss", "Path length (steps)", "Certified accuracy")
    panels: dict[str, list[str]] = {title: [] for title in titles}
    for key, points in history.items():
        title = _title(key)
        if title is not None and points and len(panels[title]) < _MOST_CURVES:
            panels[title].append(key)
    return {title: keys for title, keys in panels.items() if keys}


def _title(key: str) -> str | None:
    group, _, name = key.rpartition("/")
    if group == "poison":
        return "Poisons" if name in ("fitted", "clean") else None
    if group == "paths":
        return "Path length (steps)" if name.startswith("length") else None
    if group in ("cert", "smooth"):
        return "Certified accuracy" if name.startswith("acc") else None
    if "loss" in name:
        return "Loss"
    return "Accuracy" if "acc" in name else None


def _panel(axes: Axes, title: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    polish(axes, title=title, xlabel="epoch")
    for number, (name, points) in enumerate(curves.items()):
        epochs = [epoch + 1 for epoch, _ in points]
        values = [value if math.isfinite(value) else math.nan for _, value in points]
        marker = "o" if len(points) <= 12 else None
        colour = PALETTE[number % len(PALETTE)]
        axes.plot(epochs, values, color=colour, linewidth=1.8, marker=marker, markersize=4, label=name)
    if title in _SHARES:
        axes.set_ylim(-0.02, 1.04)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    whole_ticks(axes)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)
