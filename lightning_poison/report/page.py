"""The page: one HTML file that needs nothing else. Its markup is in ``page.html.jinja``, its style in ``page.css``."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lightning_poison.report.comparison import compare, difference
from lightning_poison.report.logged_metric import LoggedMetric, format_value
from lightning_poison.report.run_report import Headline, RunReport, headlines, summarize, table_keys
from lightning_poison.report.section import ReportFigure, ReportTable, Section

__all__ = ["PAGE_NAME", "render_page"]

PAGE_NAME = "index.html"
_NAMES = {"num_classes": "Classes", "num_classes_with_flips": "Classes with the flips"}
_ZOOM = 0.7  # figures are drawn at 160 dots per inch, for screens with two device pixels per pixel
_NUMBER = re.compile(r"[<>]?[-+]?[\d,.]+( ?%)?|-")


def render_page(report: RunReport, files: Sequence[str] = ()) -> str:
    """The whole page as HTML; pictures and style are inside, no script, nothing is loaded.

    Args:
        report: what to show.
        files: names of the files beside the page, shown as links.

    Example:
        >>> render_page(RunReport("A & B", "2024-01-01T00:00:00+00:00"))[:15]
        '<!doctype html>'
    """
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("lightning_poison", "report")
    template = Environment(loader=loader, autoescape=True, keep_trailing_newline=True).get_template("page.html.jinja")
    metrics = [report.about(key) for key in table_keys(report)]
    rows = compare(report)
    page = {
        "summary": summarize(report),
        "moment": re.sub(r"T(\d\d:\d\d)[^+Z]*(\+00:00|Z)", r" \1 UTC", report.created),
        "cards": [_card(report, headline) for headline in headlines(report)],
        "compared": [
            {
                "metric": row.metric,
                "note": note,
                "value": format_value(row.value, row.metric.unit),
                "baseline": format_value(row.baseline, row.metric.unit),
                "change": difference(row),
                "kind": {None: "", True: " good", False: " bad"}[row.improves],
            }
            for row, note in zip(rows, _notes(row.metric for row in rows), strict=True)
        ],
        "other_run": "" if report.baseline is None else report.baseline.label.capitalize(),
        "bars": [] if report.comparison_figure is None else [_figure(report.comparison_figure)],
        "sections": [_section(section) for section in report.sections],
        "numbers": [
            {
                "metric": metric,
                "note": note,
                "value": _with_unit(report.metrics[metric.key], metric.unit),
                "pieces": re.split(r"(?<=[/_.])", metric.key),  # a line may be broken between them
            }
            for metric, note in zip(metrics, _notes(metrics), strict=True)
        ],
        "facts": _facts(report),
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "files": list(files),
        "glossary": _glossary(metrics),
    }
    contents = [(f"Compared with the {report.baseline.label}", "comparison")] if rows and report.baseline else []
    contents += [(section.title, f"section-{number}") for number, section in enumerate(report.sections)]
    contents += [("All numbers", "numbers")] if metrics else []
    contents += [("Provenance", "provenance")]
    contents += [("What the keys mean", "keys")] if metrics else []
    return template.render(report=report, page={**page, "contents": contents})


def _card(report: RunReport, headline: Headline) -> dict[str, Any]:
    """One of the few numbers at the top, with a bar, and a mark where the baseline stands."""
    value, other = report.metrics[headline.key], report.baseline_value(headline.key)
    number, _, sign = format_value(value, "share").partition(" ")
    return {
        "title": headline.title,
        "note": headline.note,
        "number": number,
        "sign": sign,
        "width": _percent(value),
        "other": None if other is None else format_value(other, "share"),
        "left": None if other is None else _percent(other),
    }


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.1f}" if share == share else "0.0"


def _notes(metrics: Iterable[LoggedMetric]) -> Iterator[str]:
    """How each number was measured, left out where it is as in the row above."""
    above = ""
    for metric in metrics:
        yield "" if metric.note == above else metric.note
        above = metric.note


def _with_unit(value: float, unit: str) -> str:
    text = format_value(value, unit)
    return text if unit in ("", "share") or text == "-" else f"{text} {unit}"


def _section(section: Section) -> dict[str, Any]:
    """One small table and one picture stand next to each other."""
    tables, figures = section.tables, section.figures
    single = len(tables) == len(figures) == 1
    return {
        "title": section.title,
        "text": section.text,
        "tables": [_table(table) for table in tables],
        "figures": [_figure(figure) for figure in figures],
        "beside": single and len(tables[0].columns) <= 3 and len(tables[0].rows) <= 14,
    }


def _table(content: ReportTable) -> dict[str, Any]:
    """A callback's table; each text with whether it is in a column of numbers, which are aligned to the right."""
    columns = [_column([row[place] for row in content.rows]) for place in range(len(content.columns))]
    right = [all(_NUMBER.fullmatch(text) for text in column) for column in columns]
    return {
        "caption": content.caption,
        "columns": list(zip(content.columns, right, strict=True)),
        "rows": [list(zip(row, right, strict=True)) for row in zip(*columns, strict=True)],
    }


def _column(cells: Sequence[str | float | None]) -> list[str]:
    """The texts of a column; its numbers share the number of decimals, four digits at most where they are small."""
    numbers = [cell for cell in cells if not isinstance(cell, str) and cell is not None and math.isfinite(cell)]
    written = [f"{number:.4g}" for number in numbers if number != int(number)]
    decimals = max((len(text.partition(".")[2]) for text in written if "e" not in text), default=0)
    return [_cell(cell, decimals) for cell in cells]


def _cell(cell: str | float | None, decimals: int) -> str:
    if isinstance(cell, str):
        return cell
    if cell is None or not math.isfinite(cell):
        return "-"
    small = 0 < abs(cell) < 0.5 * 10.0**-decimals
    return f"{cell:.4g}" if small else f"{cell:,.{decimals}f}"


def _figure(picture: ReportFigure) -> dict[str, Any]:
    """The picture, embedded in the page, at its natural size, or narrower where there is no room."""
    width, height = (round(pixels * _ZOOM) for pixels in picture.size)
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')}"
    return {"source": source, "caption": picture.caption, "width": width, "height": height}


def _facts(report: RunReport) -> list[tuple[str, str | None]]:
    """Seeds, data and poison, without its seed, which is among the seeds, and the arguments, which its text names."""
    poison = {name: value for name, value in (report.poison or {}).items() if name not in ("seed", "arguments")}
    return [
        *((f"Seed, {name}", None if seed is None else str(seed)) for name, seed in report.seeds.items()),
        *((_words(name), _fact(value)) for name, value in report.data.items()),
        *((f"Poison, {_words(name).lower()}", _fact(value)) for name, value in poison.items()),
    ]


def _words(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def _fact(value: object) -> str | None:
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _glossary(metrics: Iterable[LoggedMetric]) -> list[dict[str, Any]]:
    """Keys and their meaning; keys of one meaning, such as those of several radii, share an entry."""
    families: dict[str, list[LoggedMetric]] = {}
    for metric in metrics:
        unit = f" Unit: {metric.unit}." if metric.unit else ""
        note = f" Measured with: {metric.note}." if metric.note else ""
        families.setdefault(f"{metric.description}{unit}{note}", []).append(metric)
    return [
        {"label": _family_label(family), "keys": [metric.key for metric in family], "text": text}
        for text, family in families.items()
    ]


def _family_label(family: Sequence[LoggedMetric]) -> str:
    labels = [metric.label for metric in family]
    if len(family) > 1 and all(" at " in label for label in labels):
        labels = [label.partition(" at ")[0] for label in labels]
    return ", ".join(dict.fromkeys(labels))
