"""Everything that the report of one run says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_poison.report.section import ReportFigure, Section

__all__ = ["Baseline", "RunReport"]


@dataclass(frozen=True)
class Baseline:
    """The numbers of another run to compare with, usually the clean twin.

    Args:
        metrics: last value by key.
        label: what to call that run.
        source: the file they come from, None if they came from memory.
        fingerprint: of that run's clean training data.
    """

    metrics: Mapping[str, float]
    label: str = "clean twin"
    source: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class RunReport:
    """What is known about a run at its end.

    Args:
        title: heading of the page.
        created: moment of writing, ISO 8601 in UTC.
        command: the command line, as typed.
        metrics: last value of every key.
        history: by key, (epoch, value) at the end of each epoch of ``fit``.
        baseline: another run's numbers.
        seeds: by name, e.g. ``{"everything": 0, "poison": 0}``.
        versions: by package.
        data: what is known about the training set: fingerprint, num_classes, training_points.
        poison: the flip list's provenance, and its count.
        notes: by key, how exactly it was measured, e.g. the attack's settings.
        sections: what the callbacks contribute, in the order of the page.
        comparison_figure: this run and the baseline in a picture.
        config: the configuration file of the run, None where there is none.
        extra_files: names of files that others put into the report's folder.

    Example:
        >>> RunReport(title="A run", created="2024-01-01T00:00:00+00:00", metrics={"val/acc": 0.9}).metrics["val/acc"]
        0.9
    """

    title: str
    created: str
    command: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    baseline: Baseline | None = None
    seeds: Mapping[str, int | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    poison: Mapping[str, Any] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    comparison_figure: ReportFigure | None = None
    config: str | None = None
    extra_files: tuple[str, ...] = ()

    def baseline_value(self, key: str) -> float | None:
        """The baseline's value of ``key``, None where it has none; a poison's numbers have no counterpart."""
        if self.baseline is None or key.startswith("poison/"):
            return None
        return self.baseline.metrics.get(key)
