"""This run against another one: number by number, in bars, and their robustness curves."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from lightning_poison.report.logged_metric import LoggedMetric, format_value
from lightning_poison.report.run_report import RunReport, headlines, table_keys
from lightning_poison.report.section import ReportFigure, Section

__all__ = ["Comparison", "compare", "comparison_figure", "difference", "robustness_section"]

_MOST_BARS = 8
_ACCURACIES = ("accuracy", "adversarial", "targeted", "certified", "smoothed")


@dataclass(frozen=True)
class Comparison:
    """One number in this run and in the baseline."""

    metric: LoggedMetric
    value: float
    baseline: float

    @property
    def improves(self) -> bool | None:
        """Whether this run is better; None where equal, unknown, or neither way is better."""
        better = self.metric.higher_is_better
        change = self.value - self.baseline
        if better is None or change == 0 or not math.isfinite(change):
            return None
        return (change > 0) == better


def compare(report: RunReport) -> list[Comparison]:
    """What both runs have: not the training's, the validation's only without a test set, of the certificates the main.

    Example:
        >>> from lightning_poison.report.run_report import Baseline
        >>> (row,) = compare(RunReport("A run", "now", metrics={"val/acc": 0.9}, baseline=Baseline({"val/acc": 0.95})))
        >>> row.metric.key, row.value, row.baseline
        ('val/acc', 0.9, 0.95)
    """
    top = {headline.key for headline in headlines(report)}
    tested = {metric.name for metric in report.all_about() if metric.split == "test"}
    rows = []
    for metric in map(report.about, table_keys(report)):
        other = report.baseline_value(metric.key)
        certified = metric.kind in ("certified", "smoothed") and metric.radius is not None and metric.key not in top
        doubled = metric.split == "val" and metric.name in tested
        if other is not None and not (certified or doubled or metric.split == "train"):
            rows.append(Comparison(metric, report.metrics[metric.key], other))
    return rows


def difference(row: Comparison) -> str:
    """The signed difference, in percentage points for a share.

    Example:
        >>> difference(Comparison(LoggedMetric("val/acc", "Accuracy", "share"), 0.9, 0.95))
        '-5.0 pp'
    """
    change = row.value - row.baseline
    if not math.isfinite(change):
        return "-"
    unit = row.metric.unit
    # Two digits where one would round to a signed nought.
    digits = 2 if 0 < abs(change) < 0.0005 else 1
    text = f"{100 * abs(change):.{digits}f} pp" if unit == "share" else format_value(abs(change), unit)
    sign = "" if change == 0 else "+" if change > 0 else "-"
    return f"{sign}{text}"


def comparison_figure(report: RunReport) -> ReportFigure | None:
    """Bars of the accuracies beside the baseline's, None without a baseline."""
    shares = [row for row in compare(report) if _is_accuracy(row.metric) and not row.metric.swept]
    if report.baseline is None or not shares:
        return None
    from lightning_poison.plots import comparison_bars

    chosen = [row for row in shares if row.metric.kind != "certified"][:_MOST_BARS] or shares[:_MOST_BARS]
    label = report.baseline.label
    figure = comparison_bars(
        {row.metric.label: row.value for row in chosen},
        {row.metric.label: row.baseline for row in chosen},
        names=("this run", label),
    )
    return ReportFigure.from_figure("comparison", f"Accuracies of this run and of the {label}.", figure)


def _is_accuracy(metric: LoggedMetric) -> bool:
    return metric.kind in _ACCURACIES and metric.unit == "share" and metric.higher_is_better is True


def robustness_section(report: RunReport) -> Section | None:
    """One picture for each curve that both runs have; None where there is none.

    The test points are shown; the validation's only without a test set.

    Example:
        >>> from lightning_poison.report.run_report import Baseline
        >>> robustness_section(RunReport("A run", "now", metrics={}, baseline=Baseline({}))) is None
        True
    """
    if report.baseline is None:
        return None
    curves: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for metric in report.all_about():
        other = report.baseline_value(metric.key)
        if metric.swept and other is not None:
            curves[metric.split, metric.series].append(Comparison(metric, report.metrics[metric.key], other))
    shown = [
        _figure(report, f"{split}/{name}", points, report.baseline.label)
        for (split, name), points in curves.items()
        if len(points) > 1 and not (split == "val" and ("test", name) in curves)
    ]
    text = "Where the curves part, the flips have cost robustness. Intervals stand with each run's own curve."
    title = f"Robustness, beside the {report.baseline.label}"
    return Section(title, (text,), figures=tuple(shown), order=30) if shown else None


def _figure(report: RunReport, key: str, points: list[Comparison], label: str) -> ReportFigure:
    from lightning_poison.plots import robustness_curve_figure

    points = sorted(points, key=lambda point: point.metric.radius or 0.0)
    # In the order of the colours of the other comparisons, the baseline's first.
    series = {label: [point.baseline for point in points], "this run": [point.value for point in points]}
    what = "not driven to the target" if points[0].metric.kind == "targeted" else "accuracy"
    figure = robustness_curve_figure([point.metric.radius for point in points], series, norm=None, ylabel=what)
    caption = f"{report.about(key).label}, against the radius, of this run and of the {label}."
    return ReportFigure.from_figure(f"robustness-{re.sub(r'[^A-Za-z0-9_-]', '-', key)}", caption, figure)
