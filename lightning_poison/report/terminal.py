"""The closing table on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from lightning_poison.report.comparison import Comparison, difference
from lightning_poison.report.logged_metric import format_value
from lightning_poison.report.run_report import RunReport, summarize, table_keys

__all__ = ["print_table"]


def print_table(report: RunReport, file: TextIO | None = None) -> None:
    """Print the last values, beside the baseline's where there is one; plain aligned text in a pipe.

    Example:
        >>> print_table(RunReport("A run", "now", metrics={"val/f1": 0.9}, poison={"count": 0}))
        <BLANKLINE>
        A run
        No training label was flipped.
        <BLANKLINE>
        Metric  Value
        val/f1    0.9
        <BLANKLINE>
    """
    target = sys.stdout if file is None else file
    if target.isatty():
        _print_rich(report, target)
    else:
        _print_plain(report, target)
    target.flush()


def _rows(report: RunReport) -> tuple[list[str], list[list[str]]]:
    columns = ["Metric", "Value"]
    baseline = report.baseline
    if baseline is not None:
        columns += [baseline.label.capitalize(), "Change"]
    rows = []
    for key in table_keys(report):
        metric = report.about(key)
        row = [metric.label, format_value(report.metrics[key], metric.unit)]
        if baseline is not None:
            other = report.baseline_value(key)
            row += [format_value(other, metric.unit)]
            row += ["-" if other is None else difference(Comparison(metric, report.metrics[key], other))]
        rows.append(row)
    return columns, rows


def _print_plain(report: RunReport, file: TextIO) -> None:
    columns, rows = _rows(report)
    print(f"\n{report.title}\n{summarize(report)}\n", file=file)
    print(*_aligned([columns, *rows]), sep="\n", end="\n\n", file=file)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _print_rich(report: RunReport, file: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns, rows = _rows(report)
    table = Table(header_style="bold", title_justify="left", border_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=bool(number))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=file, highlight=False)
    console.print()
    console.print(Text(report.title, style="bold"))
    console.print(Text(summarize(report)))
    console.print(table)
