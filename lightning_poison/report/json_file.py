"""The report as a folder of files: the page, the figures, and the numbers as valid JSON, each with its unit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically
from lightning_poison.report.logged_metric import LoggedMetric
from lightning_poison.report.page import PAGE_NAME, render_page
from lightning_poison.report.run_report import Baseline, RunReport
from lightning_poison.report.section import ReportFigure, Section

__all__ = ["read_baseline", "report_json", "write_report"]

_JSON_NAME = "report.json"


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
    files = [_JSON_NAME, *unique.extra_files, *(figure.file for figure in figures)]
    contents = [(figure.file, figure.png) for figure in figures]
    text = report_json(unique, [PAGE_NAME, *files])
    markup = render_page(unique, files)
    for name, data in contents:
        write_atomically(target / name, data)
    write_atomically(target / _JSON_NAME, text)
    return write_atomically(target / PAGE_NAME, markup)


def report_json(report: RunReport, files: Sequence[str] = ()) -> str:
    """The text of ``report.json``; numbers that are not finite become null.

    Example:
        >>> json.loads(report_json(RunReport("A run", "now", metrics={"val/loss": float("nan")})))["metrics"]
        {'val/loss': None}
    """
    keys = [*report.metrics, *(key for key in report.history if key not in report.metrics)]
    content = {
        "title": report.title,
        "created": report.created,
        "command": report.command,
        "metrics": report.metrics,
        "metric_info": {key: _info(report.about(key)) for key in keys},
        "baseline": None
        if report.baseline is None
        else {
            "label": report.baseline.label,
            "source": report.baseline.source,
            "metrics": report.baseline.metrics,
        },
        "history": {
            key: [{"epoch": epoch, "value": value} for epoch, value in points] for key, points in report.history.items()
        },
        "seeds": report.seeds,
        "versions": report.versions,
        "data": report.data,
        "poison": report.poison,
        "sections": [
            {
                "title": section.title,
                "text": section.text,
                "tables": [
                    {"caption": table.caption, "columns": table.columns, "rows": table.rows} for table in section.tables
                ],
                "figures": [{"file": figure.file, "caption": figure.caption} for figure in section.figures],
            }
            for section in report.sections
        ],
        "files": list(files),
    }
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_baseline(path: str | Path, label: str = "clean twin") -> Baseline:
    """The metrics of another run, from its ``report.json`` or the folder that holds it.

    Raises:
        UserError: there is no such file, or it is not a report.
    """
    file = _find(Path(path))
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        numbers = {str(key): float(value) for key, value in content["metrics"].items() if value is not None}
        fingerprint = content.get("data", {}).get("fingerprint")
        described = [key for key in numbers if content["metric_info"][key]["unit"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'baseline must be a report.json with numbers under "metrics", got {file}; '
            "give the file that the Report callback wrote for the other run"
        ) from error
    if not described:
        raise UserError(f"baseline must hold a metric to compare with such as val/acc, got none in {file}")
    return Baseline(numbers, label, str(file), fingerprint)


def _find(path: Path) -> Path:
    for candidate in (path, path / _JSON_NAME, path / "report" / _JSON_NAME):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"baseline must be an existing report.json or a folder that holds one, got {path}; "
        "run the other run with the Report callback first"
    )


def _info(metric: LoggedMetric) -> dict[str, Any]:
    return {
        "label": metric.label,
        "unit": metric.unit,
        "description": metric.description,
        "higher_is_better": metric.higher_is_better,
        "measured_with": metric.note or None,
    }


def _plain(value: Any) -> Any:
    """Only what JSON knows: non-finite numbers become null, mappings get string keys, the rest its text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value)


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
