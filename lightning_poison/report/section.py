"""What a measurement contributes to the report: words, tables and pictures under one title."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_poison.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ReportFigure", "ReportTable", "Section"]

Cell = str | int | float | None


@dataclass(frozen=True)
class ReportTable:
    """A table of the report.

    Args:
        caption: what the rows are; shown above the table.
        columns: the heading of each column.
        rows: one cell per column; None and NaN are shown as a dash. Numbers are aligned to the right.

    Raises:
        UserError: a row has another number of cells than there are columns.

    Example:
        >>> ReportTable("Flips", ("old", "new", "count"), ((0, 1, 10), (1, 0, 10))).rows[0]
        (0, 1, 10)
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise UserError(
                    f"row {number} of table {self.caption!r} must have {len(self.columns)} cells, got {len(row)}; "
                    "give every column a cell, None for an empty one"
                )


@dataclass(frozen=True)
class ReportFigure:
    """A picture of the report.

    Args:
        name: stem of its file, letters, digits, dashes and underscores; the picture is written as ``NAME.png``.
        caption: what it shows, in a sentence or two; also its text for those who cannot see it.
        png: the picture.

    Raises:
        UserError: the name is not fit for a file.

    Example:
        >>> ReportFigure("path-lengths", "How far the boundary is.", b"...").file
        'path-lengths.png'
    """

    name: str
    caption: str
    png: bytes

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise UserError(
                f"name must be made of letters, digits, dashes and underscores, got {self.name!r}; it names a file"
            )

    @property
    def file(self) -> str:
        """Name of the picture's file."""
        return f"{self.name}.png"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the file says; (0, 0) where it is no PNG."""
        if not self.png.startswith(b"\x89PNG\r\n\x1a\n") or len(self.png) < 24:
            return 0, 0
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    @classmethod
    def from_figure(cls, name: str, caption: str, figure: Figure, dots_per_inch: int = 160) -> ReportFigure:
        """Draw a matplotlib ``figure`` and release its memory.

        Example:
            >>> from matplotlib.figure import Figure
            >>> ReportFigure.from_figure("empty", "Nothing.", Figure()).png[1:4]
            b'PNG'
        """
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
        figure.clear()
        return cls(name, caption, buffer.getvalue())


@dataclass(frozen=True)
class Section:
    """A part of the report, usually what one callback measured.

    Args:
        title: its heading; a repeated title gets a number.
        text: paragraphs of plain text.
        tables: shown after the text.
        figures: shown after the tables.
        order: sections are sorted by it, then by the order of the callbacks.

    Example:
        >>> Section("Adversarial paths", ("Steps until the prediction flips.",)).order
        50
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    order: int = 50
