"""Everything that the report of one run says, as plain data; its headlines and its summary in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_poison.report.logged_metric import DATA, LoggedMetric, describe, format_value
from lightning_poison.report.section import ReportFigure, Section

__all__ = ["Baseline", "Headline", "History", "RunReport", "as_number", "headlines", "summarize", "table_keys"]

_PROVED = "proved"  # how the note of a certificate begins that holds with certainty
_GROUPS = {"poison": 2, "paths": 3, "certified": 4}


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
        described: by key, what it means; whatever has no entry stands under its plain key.
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
    described: Mapping[str, LoggedMetric] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    comparison_figure: ReportFigure | None = None
    config: str | None = None
    extra_files: tuple[str, ...] = ()

    def about(self, key: str) -> LoggedMetric:
        """What ``key`` means."""
        return describe(key, self.described)

    def all_about(self) -> list[LoggedMetric]:
        """What the last values mean, in their order."""
        return [self.about(key) for key in self.metrics]

    def baseline_value(self, key: str) -> float | None:
        """The baseline's value of ``key``, None where it has none; a poison's numbers have no counterpart."""
        if self.baseline is None or self.about(key).kind == "poison":
            return None
        return self.baseline.metrics.get(key)


def as_number(value: Any) -> float:
    """A logged value as a float; one of single precision as the shortest decimal that means it: 0.02, not 0.0199999996.

    Example:
        >>> import torch
        >>> as_number(torch.tensor(0.02)), as_number(0.1)
        (0.02, 0.1)
    """
    number = float(value)
    return float(str(np.float32(number))) if str(getattr(value, "dtype", "")).endswith("float32") else number


class History:
    """Collects, per metric key, the value at the end of each epoch in which it was logged.

    A Trainer keeps the last value of every key, also of one that is logged every third epoch only. Such a leftover is
    the very same object as before, while a new measurement makes a new object: that tells them apart.

    Example:
        >>> history, leftover = History(), 2.0
        >>> history.collect(0, {"val/acc": 0.5, "paths/length_mean": leftover})
        >>> history.collect(1, {"val/acc": 0.75, "paths/length_mean": leftover})
        >>> history.curves()
        {'val/acc': [(0, 0.5), (1, 0.75)], 'paths/length_mean': [(0, 2.0)]}
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[int, float]] = {}
        self._seen: dict[str, Any] = {}

    def collect(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Take over what is new in ``metrics``; a second call for the same epoch overwrites."""
        for key, value in metrics.items():
            if self._seen.get(key) is not value and not key.endswith("_step"):
                self._values.setdefault(key, {})[int(epoch)] = as_number(value)
        self._seen = dict(metrics)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """By key, (epoch, value) in the order of the epochs."""
        return {key: sorted(values.items()) for key, values in self._values.items()}

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._seen.clear()

    def state_dict(self) -> dict[str, list[list[float]]]:
        """Plain Python, fit for a checkpoint that is loaded with ``weights_only``."""
        return {key: [[epoch, value] for epoch, value in points] for key, points in self.curves().items()}

    def load_state_dict(self, state: Mapping[str, list[list[float]]]) -> None:
        """Invert :meth:`state_dict`."""
        self.clear()
        self._values = {key: {int(epoch): float(value) for epoch, value in points} for key, points in state.items()}


@dataclass(frozen=True)
class Headline:
    """One of the few numbers that stand at the top: its key, a short title and a short note."""

    key: str
    title: str
    note: str


def table_keys(report: RunReport) -> list[str]:
    """The keys of the closing table: no per-step values, in the order test, val, poison, paths, cert, train, others."""

    def place(metric: LoggedMetric) -> tuple[int, int, float]:
        group = {"test": 0, "val": 1, "train": 5}.get(metric.split, _GROUPS.get(metric.kind, 6))
        within = {"accuracy": 0, "adversarial": 1, "targeted": 1}.get(metric.kind, 2)
        ordered = metric.kind == "certified" and metric.radius is not None
        return group, within, metric.radius or 0.0 if ordered else -1.0

    shown = (metric for metric in report.all_about() if not metric.key.endswith("_step"))
    return [metric.key for metric in sorted(shown, key=place)]


def headlines(report: RunReport) -> list[Headline]:
    """Accuracy, natural, adversarial and certified, and the share of poisons fitted: those that were measured."""
    found = []
    if accuracy := _accuracy(report):
        found.append(Headline(accuracy.key, "Natural accuracy", f"{DATA[accuracy.split]} points, no attack"))
    if adversarial := _adversarial(report):
        found.append(Headline(adversarial.key, "Adversarial accuracy", _attack(adversarial)))
    if fitted := _fitted(report):
        count = _count(report)
        note = "of the flipped labels" if count is None else f"of {count:,} flipped labels"
        found.append(Headline(fitted.key, fitted.label, note))
    if certified := _certified(report):
        whose = certified.note or "of the certified learner, not of the victim"
        found.append(Headline(certified.key, "Certified accuracy", f"if any {_changes(certified)}; {whose}"))
    if smoothed := _smoothed(report):
        note = f"under any change of l2 norm {smoothed.radius:.4g}; {smoothed.note or 'the smoothed victim'}"
        found.append(Headline(smoothed.key, "Certified for inputs", note))
    return found


def summarize(report: RunReport) -> str:
    """The run in one or two sentences.

    Example:
        >>> summarize(RunReport("A run", "now", metrics={"val/f1": 0.989}, poison={"count": 0}))
        'No training label was flipped.'
    """
    sentences = [_poison_words(report), _accuracy_words(report), _certificate_words(report), _smoothed_words(report)]
    return " ".join(sentence for sentence in sentences if sentence) or "Nothing was measured in this run."


def _poison_words(report: RunReport) -> str:
    count, total = _count(report), report.data.get("training_points")
    if count is None:
        return ""
    if count == 0:
        return "No training label was flipped."
    among = f" of {total:,}" if isinstance(total, int) else ""
    labels = "label" if count == 1 and not among else "labels"
    words = f"{count:,}{among} training {labels} {'was' if count == 1 else 'were'} flipped"
    fitted = _fitted(report)
    return f"{words}; the victim fitted {_value(report, fitted)} of them." if fitted else f"{words}."


def _accuracy_words(report: RunReport) -> str:
    natural, adversarial = _accuracy(report), _adversarial(report)
    words = ""
    if natural:
        words = f"Accuracy is {_value(report, natural)} on the {DATA[natural.split]} points"
    if adversarial:
        against = f"against {_attack(adversarial)}"
        words = f"{words}; {against} it keeps" if words else f"{against.capitalize()} the victim keeps"
        words = f"{words} {_value(report, adversarial)}"
    return f"{words}." if words else ""


def _certificate_words(report: RunReport) -> str:
    metric = _certified(report)
    if not metric:
        return ""
    covering = _covering(report, _curve(report, metric.series))
    nothing = "" if metric == covering else f", and nothing if any {covering.radius or 0:,.0f} do"
    learner = f"The certified learner {metric.series}" if metric.series else "The certified learner"
    claim = metric.note.partition(";")[0]
    keeps, doubt = ("keeps", f" ({claim})") if claim and claim != _PROVED else ("provably keeps", "")
    value = format_value(report.metrics[metric.key], metric.unit)
    return f"{learner} {keeps} {value} if any {_changes(metric)}{nothing}{doubt}."


def _smoothed_words(report: RunReport) -> str:
    metric = _smoothed(report)
    if not metric:
        return ""
    under = f"any change of an input of l2 norm {metric.radius:.4g}"
    return f"The smoothed victim keeps {_value(report, metric)} under {under}."


def _candidates(report: RunReport, *kinds: str) -> list[LoggedMetric]:
    return [metric for metric in report.all_about() if metric.headline and metric.kind in kinds]


def _accuracy(report: RunReport) -> LoggedMetric | None:
    return min(_candidates(report, "accuracy"), key=lambda metric: metric.split != "test", default=None)


def _adversarial(report: RunReport) -> LoggedMetric | None:
    """An untargeted attack on the test set, else whatever comes closest."""
    metrics = _candidates(report, "adversarial", "targeted")
    return min(metrics, key=lambda metric: (metric.split != "test", metric.kind == "targeted"), default=None)


def _fitted(report: RunReport) -> LoggedMetric | None:
    return next(iter(_candidates(report, "poison")), None)


def _smoothed(report: RunReport) -> LoggedMetric | None:
    """Certified accuracy of the smoothed victim at the smallest radius that is a change."""
    changes = [metric for metric in _candidates(report, "smoothed") if metric.radius]
    return min(changes, key=lambda metric: metric.radius or 0.0, default=None)


def _certified(report: RunReport) -> LoggedMetric | None:
    """The radius that covers the flips; where nothing is certified there, the largest that certifies half.

    Of several learners, the one whose numbers have no name, else the first.
    """
    names = [metric.series for metric in _candidates(report, "certified") if metric.radius]
    if not names:
        return None
    curve = _curve(report, "" if "" in names else names[0])
    covering = _covering(report, curve)
    if report.metrics[covering.key] > 0:
        return covering
    return next((metric for metric in reversed(curve) if report.metrics[metric.key] >= 0.5), curve[0])


def _curve(report: RunReport, name: str) -> list[LoggedMetric]:
    """The certified accuracies of a learner at positive radii, in their order."""
    points = [metric for metric in _candidates(report, "certified") if metric.radius and metric.series == name]
    return sorted(points, key=lambda metric: metric.radius or 0.0)


def _covering(report: RunReport, curve: list[LoggedMetric]) -> LoggedMetric:
    """The smallest radius of ``curve`` that is at least the number of flips, else the largest."""
    count = _count(report) or 0
    return next((metric for metric in curve if (metric.radius or 0.0) >= count), curve[-1])


def _changes(metric: LoggedMetric) -> str:
    return "1 training label changes" if metric.radius == 1 else f"{metric.radius or 0:,.0f} training labels change"


def _attack(metric: LoggedMetric) -> str:
    """The attack in words, where the callback has some."""
    return metric.note or "the attack"


def _count(report: RunReport) -> int | None:
    counted = (report.metrics[one.key] for one in report.all_about() if one.kind == "poison" and one.unit == "labels")
    count = (report.poison or {}).get("count", next(counted, None))
    return None if count is None else int(count)


def _value(report: RunReport, metric: LoggedMetric) -> str:
    """The value, with the baseline's where there is one."""
    text, other = format_value(report.metrics[metric.key], metric.unit), report.baseline_value(metric.key)
    if report.baseline is None or other is None:
        return text
    return f"{text} ({report.baseline.label}: {format_value(other, metric.unit)})"
