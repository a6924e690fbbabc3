"""The sections that every run has: its flips and its training; and the picture of the comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_poison.report.comparison import compare
from lightning_poison.report.metrics import describe
from lightning_poison.report.robustness import is_swept
from lightning_poison.report.run_report import RunReport
from lightning_poison.report.section import ReportFigure, ReportTable, Section

__all__ = ["comparison_figure", "flip_counts", "flip_figure", "flips_section", "training_section"]

_MOST_BARS = 8
_MOST_TABLE_ROWS = 12
_PANELS = {"Accuracy": "accuracy", "Poisons": "poisons", "Loss": "loss", "Path length (steps)": "path-length"}


def flips_section(flips: Any, num_classes: int | None = None) -> Section:
    """How many labels went from which class to which.

    Args:
        flips: a list of poisons.
        num_classes: classes after the flips, None: as many as occur.
    """
    count = len(flips)
    strategy, seed = flips.provenance.get("strategy"), flips.provenance.get("seed")
    how = f" by {strategy}" if strategy else ""
    drawn = f" with seed {seed}" if seed is not None else ""
    text = f"{flips.in_words()}{how}{drawn}."
    if not count:
        return Section("Flipped labels", ("No training label was flipped: this is a clean run.",), order=10)
    where = f"Every one of them, with index, clean and new label, is in {flips.file_name.replace('.pt', '.csv')}."
    figure = flip_figure(flips, num_classes, "flips")
    remark = flips.provenance.get("remark")
    texts = (text, where) if remark is None else (text, where, f"Note: {remark}.")
    return Section(flips.title, texts, flip_counts(flips), (figure,), order=10)


def flip_counts(flips: Any) -> tuple[ReportTable, ...]:
    """How many labels went from which class to which, as one table, or none where it would be long.

    Args:
        flips: has ``old_label`` and ``new_label``, int64 of shape (b,).
    """
    pairs = Counter(zip(flips.old_label.tolist(), flips.new_label.tolist(), strict=True))
    rows = tuple((old, new, number) for (old, new), number in sorted(pairs.items()))
    table = ReportTable("Flips by class", ("Clean label", "Flipped label", "Points"), rows)
    return (table,) if len(rows) <= _MOST_TABLE_ROWS else ()


def flip_figure(flips: Any, num_classes: int | None, name: str) -> ReportFigure:
    """The same as a picture.

    Args:
        flips: has ``old_label`` and ``new_label``, int64 of shape (b,).
        num_classes: classes after the flips, None: as many as occur.
        name: stem of the picture's file.
    """
    from lightning_poison.plots import flip_matrix

    caption = "How many labels went from each class (row) to each class (column)."
    return ReportFigure.from_figure(name, caption, flip_matrix(flips.old_label, flips.new_label, num_classes))


def training_section(history: Mapping[str, Sequence[tuple[int, float]]]) -> Section | None:
    """Curves of the epoch-end values, None after fewer than two epochs."""
    from lightning_poison.plots import curve_groups, training_curves

    if max((len(points) for points in history.values()), default=0) < 2:
        return None
    history = {key: points for key, points in history.items() if not is_swept(key)}
    labels = {key: describe(key).label for key in history}
    figures = [
        ReportFigure.from_figure(
            f"training-{_PANELS[title]}",
            f"{title} at the end of each epoch: {', '.join(labels[key].lower() for key in keys)}.",
            training_curves({key: history[key] for key in keys}, labels=labels),
        )
        for title, keys in curve_groups(history).items()
        if title in _PANELS and any(len(history[key]) > 1 for key in keys)
    ]
    return Section("Training", figures=tuple(figures), order=20) if figures else None


def comparison_figure(report: RunReport) -> ReportFigure | None:
    """Bars of the accuracies beside the baseline's, None without a baseline."""
    accuracies = [row for row in compare(report) if "acc" in row.key and describe(row.key).unit == "share"]
    shares = [row for row in accuracies if not is_swept(row.key)]
    if report.baseline is None or not shares:
        return None
    from lightning_poison.plots import comparison_bars

    chosen = [row for row in shares if not row.key.startswith("cert/")][:_MOST_BARS] or shares[:_MOST_BARS]
    label = report.baseline.label
    figure = comparison_bars(
        {describe(row.key).label: row.value for row in chosen},
        {describe(row.key).label: row.baseline for row in chosen},
        names=("this run", label),
    )
    return ReportFigure.from_figure("comparison", f"Accuracies of this run and of the {label}.", figure)
