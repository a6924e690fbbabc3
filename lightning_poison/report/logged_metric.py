"""What was measured, in the words of whoever measured it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["DATA", "LoggedMetric", "describe", "format_value"]

DATA = {"train": "training", "val": "validation", "test": "test"}
"""What to call the points of a split."""


@dataclass(frozen=True)
class LoggedMetric:
    """A number with its meaning, made where it is logged; the report shows it and knows no key by name.

    Args:
        key: under which it is logged.
        label: its name in a table.
        unit: "share" (of 1, shown in per cent), "steps", "labels", "points", "pixels", "nats", or "" where unknown.
        description: one sentence.
        value: the number; NaN where only the meaning is told.
        higher_is_better: from the victim's point of view; None where neither is.
        note: how exactly it was measured, e.g. the attack's settings.
        split: "train", "val", "test", or "" where it is of none of them.
        kind: what is measured; it rules the place in the tables, and "poison" has no counterpart in a clean run.
        headline: whether it may stand at the top of the page; of several of a kind, one is chosen.
        series: of a robustness curve, its key without the split; of a certificate, the learner's name.
        radius: where on that curve.

    Example:
        >>> LoggedMetric("val/f1", "F1 score", "share", "Harmonic mean of precision and recall.", value=0.5).label
        'F1 score'
    """

    key: str
    label: str
    unit: str = ""
    description: str = "Logged by the model or by another callback."
    value: float = math.nan
    higher_is_better: bool | None = None
    note: str = ""
    split: str = ""
    kind: Literal["", "accuracy", "adversarial", "targeted", "poison", "paths", "certified", "smoothed"] = ""
    headline: bool = False
    series: str = ""
    radius: float | None = None

    @property
    def name(self) -> str:
        """The key without its split: what is measured, on whichever points."""
        return self.key.removeprefix(f"{self.split}/")

    @property
    def swept(self) -> bool:
        """Whether it is one point of a robustness curve, which belongs in no other picture."""
        return self.radius is not None and self.kind in ("adversarial", "targeted")


def describe(key: str, described: Mapping[str, LoggedMetric]) -> LoggedMetric:
    """What is ``described`` under ``key``, or under the key that Lightning made it of; else the key stands for itself.

    Example:
        >>> known = {"val/acc": LoggedMetric("val/acc", "Accuracy")}
        >>> describe("val/acc/dataloader_idx_1", known).label, describe("val/f1", known).label
        ('Accuracy, loader 1', 'val/f1')
    """
    if key in described:
        return described[key]
    base, _, loader = key.partition("/dataloader_idx_")
    known = described.get(base.removesuffix("_epoch"))
    if known is None:
        split, slash, _ = key.partition("/")
        return LoggedMetric(key, key, split=split if slash and split in DATA else "")
    label = f"{known.label}, loader {loader}" if loader else known.label
    return replace(known, key=key, label=label, headline=False, radius=None)


def format_value(value: float | None, unit: str) -> str:
    """A value in words a reader takes in at a glance; a dash for None, NaN and infinity.

    Example:
        >>> format_value(0.98765, "share"), format_value(5654.0, "labels"), format_value(float("nan"), "share")
        ('98.8 %', '5,654', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if unit == "share":
        return f"{_percent(value)} %"
    if unit == "nats" and 1e-3 <= abs(value) < 1e3:
        return f"{value:.4f}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if unit in ("steps", "labels", "points") else f"{value:.4g}"


def _percent(share: float) -> str:
    """One decimal, but never "100.0" or "0.0" for a share that is not quite."""
    text = f"{100 * share:.1f}"
    if text in ("100.0", "0.0") and share not in (0.0, 1.0):
        return ">99.9" if share > 0.5 else "<0.1"
    return text
