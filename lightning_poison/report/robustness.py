"""The robustness curves of this run beside those of the run that it is compared with."""

from __future__ import annotations

import re
from collections import defaultdict

from lightning_poison.report.metrics import describe
from lightning_poison.report.run_report import RunReport
from lightning_poison.report.section import ReportFigure, Section

__all__ = ["is_swept", "robustness_section"]

_SWEPT = re.compile(r"(?P<curve>(?:val|test)/adv_acc.*)_eps_(?P<radius>\d[\d.e-]*)")


def is_swept(key: str) -> bool:
    """Whether a metric is one point of a robustness curve, which belongs in no other picture.

    Example:
        >>> is_swept("test/adv_acc_eps_0.1"), is_swept("test/adv_acc")
        (True, False)
    """
    return _SWEPT.fullmatch(key) is not None


def robustness_section(report: RunReport) -> Section | None:
    """One picture for each curve that both runs have; None where there is none.

    The test points are shown; the validation's only without a test set.

    Example:
        >>> from lightning_poison.report.run_report import Baseline
        >>> mine, other = {"val/adv_acc_eps_0.1": 0.2, "val/adv_acc_eps_0.2": 0.1}, {}
        >>> robustness_section(RunReport("A run", "now", metrics=mine, baseline=Baseline(other))) is None
        True
    """
    if report.baseline is None:
        return None
    curves: dict[str, dict[float, tuple[float, float]]] = defaultdict(dict)
    for key, value in report.metrics.items():
        match, other = _SWEPT.fullmatch(key), report.baseline_value(key)
        if match is not None and other is not None:
            curves[match["curve"]][float(match["radius"])] = value, other
    shown = {key: points for key, points in curves.items() if len(points) > 1 and not _is_minor(key, curves)}
    if not shown:
        return None
    figures = tuple(_figure(key, points, report.baseline.label) for key, points in shown.items())
    text = "Where the curves part, the flips have cost robustness. Intervals stand with each run's own curve."
    return Section(f"Robustness, beside the {report.baseline.label}", (text,), figures=figures, order=30)


def _is_minor(key: str, curves: dict[str, dict[float, tuple[float, float]]]) -> bool:
    split, _, name = key.partition("/")
    return split == "val" and f"test/{name}" in curves


def _figure(key: str, points: dict[float, tuple[float, float]], label: str) -> ReportFigure:
    from lightning_poison.plots import robustness_curve_figure

    radii = sorted(points)
    mine, other = ([points[radius][number] for radius in radii] for number in (0, 1))
    # In the order of the colours of the other comparisons, the baseline's first.
    series, what = {label: other, "this run": mine}, "not driven to the target" if "_to_" in key else "accuracy"
    figure = robustness_curve_figure(radii, series, norm=None, ylabel=what)
    caption = f"{describe(key).label}, against the radius, of this run and of the {label}."
    return ReportFigure.from_figure(f"robustness-{re.sub(r'[^A-Za-z0-9_-]', '-', key)}", caption, figure)
