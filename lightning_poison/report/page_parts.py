"""The building blocks of the page: cards, tables, figures, facts."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from lightning_poison.report.comparison import Comparison, difference
from lightning_poison.report.html import Markup, breakable, element
from lightning_poison.report.metrics import describe, format_value
from lightning_poison.report.run_report import RunReport
from lightning_poison.report.section import ReportFigure, ReportTable
from lightning_poison.report.summary import Headline

__all__ = ["cards", "comparison_table", "facts", "figures", "metrics_table", "part", "table"]

_ZOOM = 0.7  # figures are drawn at 160 dots per inch, for screens with two device pixels per pixel
_NUMBER = re.compile(r"[<>]?[-+]?[\d,.]+( ?%)?|-")


def part(title: str, anchor: str, *children: Markup | list[Markup] | None) -> Markup:
    """A titled section of the page."""
    heading = f"{anchor}-title"
    return element(
        "section", element("h2", title, id=heading), children, class_="part", id=anchor, aria_labelledby=heading
    )


def cards(report: RunReport, headlines: Iterable[Headline]) -> Markup | None:
    """The few numbers at the top, each with a bar, and a mark where the baseline stands."""
    items = [_card(report, headline) for headline in headlines]
    return element("ul", items, class_="cards", aria_label="Headline numbers") if items else None


def _card(report: RunReport, headline: Headline) -> Markup:
    value, other = report.metrics[headline.key], report.baseline_value(headline.key)
    number, _, sign = format_value(value, "share").partition(" ")
    marks = [element("i", style=f"width:{_percent(value):.1f}%")]
    twin = None
    if other is not None and report.baseline is not None:
        marks.append(element("b", style=f"left:{_percent(other):.1f}%"))
        twin = element("p", f"{report.baseline.label}: {format_value(other, 'share')}", class_="twin")
    return element(
        "li",
        element("h2", headline.title),
        element("p", number, element("small", sign) if sign else None, class_="value"),
        element("div", marks, class_="meter", aria_hidden="true"),
        element("p", headline.note),
        twin,
        class_="card",
    )


def _percent(share: float) -> float:
    return 100 * min(1.0, max(0.0, share)) if share == share else 0.0


def comparison_table(report: RunReport, rows: Sequence[Comparison], label: str) -> Markup:
    """This run beside the baseline."""
    body = []
    notes = _notes(report, [row.key for row in rows])
    for row in rows:
        info = describe(row.key)
        better = row.improves
        kind = "number" if better is None else "number good" if better else "number bad"
        body.append(
            element(
                "tr",
                element("th", info.label, notes[row.key], scope="row"),
                element("td", format_value(row.value, info.unit), class_="number"),
                element("td", format_value(row.baseline, info.unit), class_="number"),
                element("td", difference(row), class_=kind),
            )
        )
    head = [element("th", "", scope="col"), *(_head(text, number=True) for text in ("This run", label, "Change"))]
    return _scroll(f"This run and {label}", element("thead", element("tr", head)), element("tbody", body))


def metrics_table(report: RunReport, keys: Sequence[str]) -> Markup:
    """Every last value with its key."""
    rows = [
        element(
            "tr",
            element("th", describe(key).label, note, scope="row"),
            element("td", _with_unit(report.metrics[key], key), class_="number"),
            element("td", element("code", breakable(key))),
        )
        for key, note in _notes(report, keys).items()
    ]
    head = element("tr", _head("Metric"), _head("Last value", number=True), _head("Key"))
    return _scroll("All numbers", element("thead", head), element("tbody", rows))


def _notes(report: RunReport, keys: Iterable[str]) -> dict[str, Markup | None]:
    """How each key was measured, left out where it is as in the row above."""
    shown: dict[str, Markup | None] = {}
    above = None
    for key in keys:
        note = report.notes.get(key)
        shown[key] = element("small", note) if note and note != above else None
        above = note
    return shown


def _with_unit(value: float, key: str) -> str:
    unit = describe(key).unit
    text = format_value(value, unit)
    return text if unit in ("", "share") or text == "-" else f"{text} {unit}"


def table(content: ReportTable) -> Markup:
    """A callback's table; columns of numbers are aligned to the right."""
    columns = [_column([row[place] for row in content.rows]) for place in range(len(content.columns))]
    texts = list(zip(*columns, strict=True))
    numeric = [all(_NUMBER.fullmatch(row[place]) for row in texts) for place in range(len(content.columns))]
    head = element("tr", [_head(name, number=right) for name, right in zip(content.columns, numeric, strict=True)])
    body = [
        element(
            "tr",
            [element("td", text, class_="number" if right else None) for text, right in zip(row, numeric, strict=True)],
        )
        for row in texts
    ]
    return _scroll(
        content.caption,
        element("caption", content.caption) if content.caption else None,
        element("thead", head),
        element("tbody", body),
        narrow=len(content.columns) <= 4,
    )


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


def _head(text: str, *, number: bool = False) -> Markup:
    return element("th", text, scope="col", class_="number" if number else None)


def _scroll(label: str, *children: Markup | None, narrow: bool = False) -> Markup:
    """A table in a box of its own that scrolls where it is wider than the page."""
    inner = element("table", children, class_="narrow" if narrow else None)
    return element("div", inner, class_="scroll", role="region", aria_label=label or "Table", tabindex="0")


def figures(pictures: Iterable[ReportFigure]) -> Markup | None:
    """Pictures side by side where there is room, embedded in the page."""
    drawn = [
        element(
            "figure",
            _image(picture),
            element("figcaption", picture.caption),
        )
        for picture in pictures
    ]
    return element("div", drawn, class_="figures") if drawn else None


def _image(picture: ReportFigure) -> Markup:
    """The picture at its natural size, or narrower where there is no room."""
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')}"
    width, height = (str(round(pixels * _ZOOM)) for pixels in picture.size)
    return element("img", src=source, alt=picture.caption, width=width, height=height)


def facts(entries: Mapping[str, object]) -> Markup:
    """Names and values; those without a value are left out."""
    rows = [
        [element("dt", name), element("dd", value if isinstance(value, str) else str(value))]
        for name, value in entries.items()
        if value not in (None, "")
    ]
    return element("dl", rows, class_="facts")
