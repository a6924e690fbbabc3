"""Accuracy under attack: against the radius, beside other runs, over training, and for strategies of flipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lightning_poison.errors import UserError
from lightning_poison.plots.style import INK, MUTED, PALETTE, WIDTH, as_array, new_figure, polish, whole_ticks

__all__ = [
    "IntervalPoint",
    "comparison_bars",
    "curve_groups",
    "robustness_curve_figure",
    "strategy_curve",
    "strategy_intervals",
    "training_curves",
]

History = Mapping[str, Sequence[tuple[int, float]]]
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")
_STRATEGY_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SHARES = ("Accuracy", "Poisons", "Certified accuracy")
_MOST_CURVES = 7


# --- against the radius -----------------------------------------------------------------------------------------------


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


# --- two runs ---------------------------------------------------------------------------------------------------------


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


# --- strategies -------------------------------------------------------------------------------------------------------


class IntervalPoint(NamedTuple):
    """A value with its interval, whose ends are NaN where it has none."""

    value: float
    low: float
    high: float


def strategy_intervals(panels: Mapping[str, Mapping[str, Mapping[str, IntervalPoint]]], *, xlabel: str) -> Figure:
    """Points with intervals, a row for each strategy, a colour for each kind of victim; zero is the baseline.

    Args:
        panels: by title, then by strategy (top to bottom), then by victim: a difference of shares.
        xlabel: what is drawn.

    Example:
        >>> point = IntervalPoint(-0.15, -0.2, -0.1)
        >>> figure = strategy_intervals({"eps 0.1": {"Medoids": {"MLP": point}}}, xlabel="minus random")
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['Medoids']
    """
    if not panels:
        return _nothing()
    strategies = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    victims = list(dict.fromkeys(name for panel in panels.values() for row in panel.values() for name in row))
    height = 1.5 + len(strategies) * (0.3 + 0.14 * len(victims))
    figure = new_figure(height, width=WIDTH * max(1.0, 0.65 * len(panels)))
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(every, panels.items(), strict=False):
        polish(axes, title=title, grid="x")
        axes.axvline(0, color=INK, linewidth=1)
        for number, victim in enumerate(victims):
            shift = 0.7 * ((number + 0.5) / len(victims) - 0.5)
            drawn = [
                (place + shift, rows[name][victim]) for place, name in enumerate(strategies) if _has(rows, name, victim)
            ]
            for place, point in drawn:
                _bar(axes, point, place, PALETTE[number % len(PALETTE)])
            axes.plot(
                [point.value for _, point in drawn],
                [place for place, _ in drawn],
                _STRATEGY_MARKERS[number % len(_STRATEGY_MARKERS)],
                color=PALETTE[number % len(PALETTE)],
                label=victim,
            )
        axes.set_yticks(range(len(strategies)), strategies)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(strategies) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6 if len(panels) == 1 else 4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    figure.supxlabel(xlabel, fontsize=9, color=MUTED)  # one for all panels: long names leave little room to each
    if victims:
        handles, labels = every[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9, frameon=False, labelcolor=INK)
    return figure


def strategy_curve(
    panels: Mapping[str, Mapping[str, IntervalPoint]],
    levels: Mapping[str, IntervalPoint],
    *,
    level_name: str = "random",
    ylabel: str = "adversarial accuracy",
) -> Figure:
    """Shares from strategy to strategy, such as from bucket to bucket, with the baseline as a line.

    Args:
        panels: by title, then by strategy (left to right).
        levels: the baseline by title.
        level_name: what the baseline is.
        ylabel: what is drawn.

    Example:
        >>> point = IntervalPoint(0.6, 0.5, 0.7)
        >>> figure = strategy_curve({"MLP": {"near": point, "far": point}}, {"MLP": point})
        >>> figure.axes[0].lines[-1].get_ydata().tolist()
        [0.6, 0.6]
    """
    if not panels:
        return _nothing()
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    figure = new_figure(3.2, width=WIDTH * max(1.0, 0.65 * len(panels)))
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for number, (axes, (title, row)) in enumerate(zip(every, panels.items(), strict=False)):
        polish(axes, title=title, ylabel="" if number else ylabel)
        if title in levels:
            level = levels[title]
            axes.axhline(level.value, color=PALETTE[1], linewidth=1.5, label=level_name)
            if math.isfinite(level.low):
                axes.axhspan(level.low, level.high, color=PALETTE[1], alpha=0.12, linewidth=0)
        places = [names.index(name) for name in row]
        points = np.array(list(row.values()), dtype=np.float64).reshape(-1, 3)
        for place, point in zip(places, row.values(), strict=True):
            if math.isfinite(point.low):
                axes.plot([place, place], [point.low, point.high], color=PALETTE[0], linewidth=1.2)
        axes.plot(places, points[:, 0], "o-", color=PALETTE[0], linewidth=2)
        axes.set_xticks(range(len(names)), names, rotation=30 if len("".join(names)) > 40 else 0)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        if title in levels:
            axes.legend(fontsize=9, frameon=False, labelcolor=MUTED)
    return figure


def _nothing() -> Figure:
    figure = new_figure(1.2)
    figure.text(0.5, 0.5, "Nothing to show: too few runs have memorised their flips.", ha="center", color=INK)
    return figure


def _has(rows: Mapping[str, Mapping[str, IntervalPoint]], strategy: str, victim: str) -> bool:
    return strategy in rows and victim in rows[strategy]


def _bar(axes: Axes, point: IntervalPoint, place: float, colour: str) -> None:
    if math.isfinite(point.low) and math.isfinite(point.high):
        axes.plot([point.low, point.high], [place, place], color=colour, linewidth=1.5, alpha=0.8)


# --- over training ----------------------------------------------------------------------------------------------------


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
