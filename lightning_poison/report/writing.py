"""The report as a folder of files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lightning_poison.functional.files import write_atomically
from lightning_poison.report.json_file import JSON_NAME, report_json
from lightning_poison.report.page import PAGE_NAME, render_page
from lightning_poison.report.run_report import RunReport
from lightning_poison.report.section import ReportFigure, Section

__all__ = ["write_report"]


def write_report(folder: str | Path, report: RunReport) -> Path:
    """Write figures, ``report.json`` and, last, ``index.html``; each is whole or not there.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> write_report(tempfile.mkdtemp(), RunReport("A run", "2024-01-01T00:00:00+00:00")).name
        'index.html'
    """
    target = Path(folder)
    unique = replace(report, sections=_with_unique_names(report.sections))
    figures = [figure for section in unique.sections for figure in section.figures]
    if unique.comparison_figure is not None:
        figures.insert(0, unique.comparison_figure)
    files = [JSON_NAME, *unique.extra_files, *(figure.file for figure in figures)]
    contents = [(figure.file, figure.png) for figure in figures]
    text = report_json(unique, [PAGE_NAME, *files])
    markup = render_page(unique, files)
    for name, data in contents:
        write_atomically(target / name, data)
    write_atomically(target / JSON_NAME, text)
    return write_atomically(target / PAGE_NAME, markup)


def _with_unique_names(sections: Iterable[Section]) -> tuple[Section, ...]:
    """Number repeated titles and figure names, as two callbacks of one class make them."""
    titles: set[str] = set()
    names: set[str] = set()
    renamed = []
    for section in sections:
        figures = tuple(_renamed(figure, names) for figure in section.figures)
        title = _free(section.title, titles, " {}")
        renamed.append(replace(section, title=title, figures=figures))
    return tuple(renamed)


def _renamed(figure: ReportFigure, taken: set[str]) -> ReportFigure:
    return replace(figure, name=_free(figure.name, taken, "-{}"))


def _free(name: str, taken: set[str], pattern: str) -> str:
    """``name``, or with the first number from 2 on that makes it new; it is taken afterwards."""
    number, free = 2, name
    while free.lower() in taken:
        free = name + pattern.format(number)
        number += 1
    taken.add(free.lower())
    return free
