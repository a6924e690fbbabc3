"""The sections that every run has: its flips and its training."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightning_poison.report.run_report import RunReport
from lightning_poison.report.section import ReportFigure, ReportTable, Section

__all__ = ["flip_counts", "flip_figure", "flips_section", "training_section"]

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


def training_section(report: RunReport) -> Section | None:
    """Curves of the epoch-end values, None after fewer than two epochs."""
    from lightning_poison.plots import curve_groups, training_curves

    if max((len(points) for points in report.history.values()), default=0) < 2:
        return None
    history = {key: points for key, points in report.history.items() if not report.about(key).swept}
    labels = {key: report.about(key).label for key in history}
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
