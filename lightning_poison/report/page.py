"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lightning_poison.report.comparison import compare
from lightning_poison.report.html import Markup, element
from lightning_poison.report.metrics import describe
from lightning_poison.report.page_parts import cards, comparison_table, facts, figures, metrics_table, part, table
from lightning_poison.report.page_style import STYLE
from lightning_poison.report.run_report import RunReport
from lightning_poison.report.section import Section
from lightning_poison.report.summary import headlines, summarize, table_keys

__all__ = ["PAGE_NAME", "render_page"]

PAGE_NAME = "index.html"
_NAMES = {"num_classes": "Classes", "num_classes_with_flips": "Classes with the flips"}


def render_page(report: RunReport, files: Sequence[str] = ()) -> str:
    """The whole page as HTML; pictures and style are inside, no script, nothing is loaded.

    Args:
        report: what to show.
        files: names of the files beside the page, shown as links.

    Example:
        >>> render_page(RunReport("A & B", "2024-01-01T00:00:00+00:00"))[:15]
        '<!doctype html>'
    """
    parts = _parts(report, files)
    body = element(
        "body",
        element("a", "Skip to the numbers", class_="skip", href="#main"),
        element(
            "div",
            _hero(report),
            element("main", cards(report, headlines(report)), _contents(parts), _wrap_parts(parts), id="main"),
            element(
                "footer", f"Written by lightning_poison {report.versions.get('lightning_poison', '')}".strip(), "."
            ),
            class_="wrap",
        ),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", report.title),
        element("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


Content = list[Markup | list[Markup] | None]
Part = tuple[str, str, Content]
"""Title, anchor and content."""


def _hero(report: RunReport) -> Markup:
    moment = re.sub(r"T(\d\d:\d\d)[^+Z]*(\+00:00|Z)", r" \1 UTC", report.created)
    return element(
        "header",
        element("p", "Label flips: report of a run", class_="overline"),
        element("h1", report.title),
        element("p", summarize(report), class_="lede"),
        element("p", "Written ", element("time", moment, datetime=report.created), class_="when"),
        class_="hero",
    )


def _contents(parts: Iterable[Part]) -> Markup:
    links = [element("li", element("a", title, href=f"#{anchor}")) for title, anchor, _ in parts]
    return element("nav", element("ul", links), class_="contents", aria_label="Contents")


def _wrap_parts(parts: Iterable[Part]) -> list[Markup]:
    return [part(title, anchor, *content) for title, anchor, content in parts]


def _parts(report: RunReport, files: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    rows = compare(report)
    if report.baseline is not None and rows:
        label = report.baseline.label
        what = f"The same measurements on the {label}; differences of shares are in percentage points (pp)."
        content: Content = [element("p", what), _bars(report), comparison_table(report, rows, label.capitalize())]
        parts.append((f"Compared with the {label}", "comparison", content))
    parts += _section_parts(report.sections)
    keys = table_keys(report)
    if keys:
        parts.append(("All numbers", "numbers", [metrics_table(report, keys)]))
    parts.append(("Provenance", "provenance", _provenance(report, files)))
    if keys:
        parts.append(("What the keys mean", "keys", [_glossary(report, keys)]))
    return parts


def _bars(report: RunReport) -> Markup | None:
    return None if report.comparison_figure is None else figures([report.comparison_figure])


def _section_parts(sections: Iterable[Section]) -> list[Part]:
    parts: list[Part] = []
    for number, section in enumerate(sections):
        tables, pictures = [table(each) for each in section.tables], figures(section.figures)
        content: Content = [element("p", text) for text in section.text]
        content += [element("div", tables, pictures, class_="beside")] if _fit_beside(section) else [tables, pictures]
        parts.append((section.title, f"section-{number}", content))
    return parts


def _fit_beside(section: Section) -> bool:
    """Whether one small table and one picture can stand next to each other."""
    if len(section.tables) != 1 or len(section.figures) != 1:
        return False
    return len(section.tables[0].columns) <= 3 and len(section.tables[0].rows) <= 14


def _provenance(report: RunReport, files: Sequence[str]) -> Content:
    entries: dict[str, object] = {"Command": element("code", report.command) if report.command else None}
    entries |= {f"Seed, {name}": seed for name, seed in report.seeds.items()}
    entries |= {_words(name): _fact(value) for name, value in report.data.items()}
    entries |= {f"Poison, {_words(name).lower()}": _fact(value) for name, value in _poison_facts(report)}
    if report.baseline is not None and report.baseline.source:
        entries[f"Numbers of the {report.baseline.label}"] = element("code", report.baseline.source)
    entries["Versions"] = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    links = [element("a", name, href=name) for name in files]
    if links:
        entries["Files"] = Markup(", ".join(links))
    config = element("details", element("summary", "Configuration"), element("pre", element("code", report.config)))
    return [facts(entries), config if report.config else None]


def _poison_facts(report: RunReport) -> list[tuple[str, Any]]:
    """Without the seed, which stands among the seeds, and the arguments, which the strategy's text names."""
    return [(name, value) for name, value in (report.poison or {}).items() if name not in ("seed", "arguments")]


def _words(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def _fact(value: object) -> str | None:
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _glossary(report: RunReport, keys: Iterable[str]) -> Markup:
    """Keys and their meaning; keys of one meaning, such as those of several radii, share an entry."""
    families: dict[str, list[str]] = {}
    for key in keys:
        info = describe(key)
        unit = f" Unit: {info.unit}." if info.unit else ""
        note = f" Measured with: {report.notes[key]}." if key in report.notes else ""
        families.setdefault(f"{info.description}{unit}{note}", []).append(key)
    entries = []
    for text, family in families.items():
        codes = [element("code", key) for key in family]
        entries += [element("dt", element("strong", _family_label(family)), codes), element("dd", text)]
    return element("dl", entries, class_="keys")


def _family_label(family: Sequence[str]) -> str:
    labels = [describe(key).label for key in family]
    if len(family) > 1 and all(" at " in label for label in labels):
        labels = [label.partition(" at ")[0] for label in labels]
    return ", ".join(dict.fromkeys(labels))
