"""This run against another one, number by number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_poison.report.metrics import describe, format_value
from lightning_poison.report.run_report import RunReport
from lightning_poison.report.summary import headlines, table_keys

__all__ = ["Comparison", "compare", "difference"]


@dataclass(frozen=True)
class Comparison:
    """One key's value in this run and in the baseline."""

    key: str
    value: float
    baseline: float

    @property
    def improves(self) -> bool | None:
        """Whether this run is better; None where equal, unknown, or neither way is better."""
        better = describe(self.key).higher_is_better
        change = self.value - self.baseline
        if better is None or change == 0 or not math.isfinite(change):
            return None
        return (change > 0) == better


def compare(report: RunReport) -> list[Comparison]:
    """What both runs have: not the training's, the validation's only without a test set, of the certificates the main.

    Example:
        >>> from lightning_poison.report.run_report import Baseline
        >>> compare(RunReport("A run", "now", metrics={"val/acc": 0.9}, baseline=Baseline({"val/acc": 0.95})))
        [Comparison(key='val/acc', value=0.9, baseline=0.95)]
    """
    pairs = ((key, report.baseline_value(key)) for key in table_keys(report) if not _is_minor(key, report))
    return [Comparison(key, report.metrics[key], value) for key, value in pairs if value is not None]


def _is_minor(key: str, report: RunReport) -> bool:
    group, _, name = key.partition("/")
    if name.startswith("acc_at_"):
        return key not in {headline.key for headline in headlines(report)}
    return group == "train" or (group == "val" and f"test/{name}" in report.metrics)


def difference(row: Comparison) -> str:
    """The signed difference, in percentage points for a share.

    Example:
        >>> difference(Comparison("val/acc", 0.9, 0.95))
        '-5.0 pp'
    """
    change = row.value - row.baseline
    if not math.isfinite(change):
        return "-"
    unit = describe(row.key).unit
    # Two digits where one would round to a signed nought.
    digits = 2 if 0 < abs(change) < 0.0005 else 1
    text = f"{100 * abs(change):.{digits}f} pp" if unit == "share" else format_value(abs(change), unit)
    sign = "" if change == 0 else "+" if change > 0 else "-"
    return f"{sign}{text}"
