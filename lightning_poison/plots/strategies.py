"""Strategies of choosing flips side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lightning_poison.plots.style import INK, MUTED, PALETTE, WIDTH, new_figure, polish

__all__ = ["IntervalPoint", "strategy_curve", "strategy_intervals"]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


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
                _MARKERS[number % len(_MARKERS)],
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
