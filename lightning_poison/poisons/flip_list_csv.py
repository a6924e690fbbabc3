"""Flip lists as CSV files that a person can read and write.

::

    # format_version: 1
    # strategy: "LabelFlips(RandomPoints(per_class=10), NextClass())"
    # seed: 0
    index,old_label,new_label
    17,3,4
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically

__all__ = ["FORMAT_VERSION", "provenance_lines", "read_flip_list", "write_flip_list"]

FORMAT_VERSION = 1
_COLUMNS = ("index", "old_label", "new_label")
_HEADER = ",".join(_COLUMNS)
_DELIMITERS = ",;\t"
_DIGITS = 19  # int64 holds every shorter number
_SHOWN = 40
_NO_JSON = object()


def write_flip_list(path: str | Path, columns: Sequence[Tensor], provenance: Mapping[str, Any]) -> Path:
    """Write the columns of a flip list to ``path``, whole or not at all.

    Args:
        path: of the file.
        columns: index, old and new labels, each (b,), int64.
        provenance: plain values that JSON can hold.

    Raises:
        UserError: the folder cannot be written.
    """
    lines = [*provenance_lines(FORMAT_VERSION, provenance), _HEADER]
    lines += [f"{index},{old},{new}" for index, old, new in torch.stack(list(columns), dim=1).tolist()]
    return write_atomically(path, "\n".join(lines) + "\n")


def provenance_lines(format_version: int, provenance: Mapping[str, Any]) -> list[str]:
    """The comments at the head of a list, one for each fact.

    Args:
        format_version: of the file.
        provenance: plain values that JSON can hold.

    Example:
        >>> provenance_lines(1, {"seed": 0})
        ['# format_version: 1', '# seed: 0']
    """
    facts = {"format_version": format_version, **provenance}
    return [f"# {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]


def read_flip_list(path: str | Path) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Read the table of a flip list; one without provenance is accepted.

    It may have gone through a spreadsheet or a data frame: separated by commas, semicolons or tabs, in quotes, with a
    byte-order mark, ``3.0`` for 3, empty rows, other columns beside the three, and these in any order.

    Returns:
        index, old and new label of each flip, shape (b, 3), int64; the provenance; and the line number of each row,
        shape (b,), int64.

    Raises:
        UserError: the file is missing, empty or malformed, or a value is in doubt; the message names the file, the row
            (its line number) and the column.
    """
    name = str(path)
    lines = _lines(Path(path))
    header_at = next((at for at, line in enumerate(lines) if not _is_aside(line)), None)
    if header_at is None:
        raise UserError(f"{name} has no header; its first line after the comments must read {_HEADER}")
    header = _Header.read(lines[header_at], name, header_at + 1)
    provenance: dict[str, Any] = {}
    for number, line in enumerate(lines[:header_at], start=1):
        _read_provenance(line, provenance, name, number)
    if "distance" in header.columns and "norm" in provenance:
        _refuse(name, header_at + 1, "this is the table of poison points; give the .pt file beside it (PointsFromFile)")
    rows, numbers = _rows(lines, header_at, header, name)
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
    return table, provenance, torch.tensor(numbers, dtype=torch.int64)


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no flip list at {path}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the flip list {path}: {error}") from error
    if not text.strip():
        raise UserError(f"{path} is empty; a flip list begins with the header {_HEADER}")
    return [_bare(line) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def _bare(line: str) -> str:
    """A line without what a spreadsheet adds: empty cells at its end, quotes around the whole, blanks behind quotes."""
    line = line.rstrip(_DELIMITERS + " ")
    with suppress(csv.Error):
        cells = next(csv.reader([line], strict=True), [])
        line = cells[0] if len(cells) == 1 else line
    return re.sub(r'" +(?=[,;\t])', '"', line)


def _is_aside(line: str) -> bool:
    """Whether a line is empty, a comment, or a spreadsheet's word on its delimiter."""
    return not line or line.lstrip().startswith(("#", '"#')) or re.fullmatch(r"sep=.?", line) is not None


@dataclass(frozen=True)
class _Header:
    """The names of the columns, and what stands between them."""

    delimiter: str
    columns: tuple[str, ...]

    @classmethod
    def read(cls, line: str, name: str, number: int) -> _Header:
        """Of the delimiters the one that gives most of the three columns."""
        found = [cls(each, _names(_split(line, each, skipinitialspace=True))) for each in _DELIMITERS]
        best = max(found, key=lambda header: len(header.present))
        if len(best.present) < len(_COLUMNS):
            missing = [column for column in _COLUMNS if column not in best.present]
            lacks = f", which lacks {' and '.join(missing)}" if best.present else ""
            further = "in any order and with further columns if need be"
            _refuse(name, number, f"the header must read {_HEADER}, {further}, got {line.strip()!r}{lacks}")
        for column in _COLUMNS:
            if best.columns.count(column) > 1:
                _refuse(name, number, f"the header has the column {column} twice, got {line.strip()!r}; keep one")
        return best

    @property
    def present(self) -> set[str]:
        """The three columns, as far as they are there."""
        return set(_COLUMNS) & set(self.columns)


def _names(cells: list[str]) -> tuple[str, ...]:
    """Column names as we write them, whatever the case, and with blanks for underscores."""
    return tuple(re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in cells)


def _split(line: str, delimiter: str, skipinitialspace: bool = False) -> list[str]:
    """The cells of one line, whether or not its quotes fit together; none where it is no text for a table."""
    with suppress(csv.Error):
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=skipinitialspace), [])
    return []


def _cells(lines: list[str], delimiter: str, name: str, before: int) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row without the blanks around them, and the number of the row's first line.

    Args:
        lines: of the file, a row each unless quotes enclose a line break.
        delimiter: of the cells.
        name: of the file.
        before: number of lines before them.
    """
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    number = before + 1
    try:
        for cells in reader:
            yield number, [cell.strip() for cell in cells]
            number = before + reader.line_num + 1
    except csv.Error as error:
        _refuse(name, number, f"its quotes do not fit together ({error}); a quote within quotes is written twice")


def _rows(lines: list[str], header_at: int, header: _Header, name: str) -> tuple[list[list[int]], list[int]]:
    """Index, old label and new label of each row, and the numbers of the rows."""
    places = [header.columns.index(column) for column in _COLUMNS]
    below = ["" if _is_aside(line) else line for line in lines[header_at + 1 :]]
    rows, numbers = [], []
    for number, cells in _cells(below, header.delimiter, name, header_at + 1):
        if not any(cells) or _names(cells) == header.columns:  # empty, or the header again, where files were joined
            continue
        if any(cells[len(header.columns) :]):
            _refuse(name, number, f"it has {len(cells)} cells, and the header {len(header.columns)} columns")
        padded = cells + [""] * (len(header.columns) - len(cells))
        rows.append(
            [_value(padded[place], column, name, number) for place, column in zip(places, _COLUMNS, strict=True)]
        )
        numbers.append(number)
    return rows, numbers


def _value(cell: str, column: str, name: str, number: int) -> int:
    """A whole number, which a data frame with gaps writes as 3.0."""
    if not re.fullmatch(r"[+-]?[0-9]+(\.0*)?", cell):
        got = repr(cell) if cell else "an empty cell"
        _refuse(name, number, f"it must be an integer such as 3, got {got}", column)
    digits = cell.partition(".")[0]
    if len(digits.lstrip("+-0")) >= _DIGITS:
        _refuse(name, number, f"the number is too large, got {cell[:_SHOWN]}", column)
    return int(digits)


def _read_provenance(line: str, provenance: dict[str, Any], name: str, number: int) -> None:
    wholes = [line]
    if line.startswith('"#'):  # a spreadsheet has taken it for cells, at commas of ours or at delimiters of its own
        split = {delimiter: _split(line, delimiter) for delimiter in _DELIMITERS}
        wholes = [sign.join(cells) for delimiter, cells in split.items() for sign in (",", delimiter)]
    parts = [whole.strip().lstrip("#").partition(":") for whole in wholes]
    key, colon, texts = parts[0][0].strip(), parts[0][1], [text.strip() for _, _, text in parts]
    if not colon:
        return  # a person's remark
    provenance[key] = next((value for value in map(_from_json, texts) if value is not _NO_JSON), texts[0])
    if key == "format_version" and provenance[key] != FORMAT_VERSION:
        _refuse(name, number, f"format_version must be {FORMAT_VERSION}, got {texts[0]}; update lightning_poison")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return _NO_JSON


def _refuse(name: str, number: int, complaint: str, column: str = "") -> NoReturn:
    where = f"{name}, row {number}{', column ' if column else ''}{column}"
    raise UserError(f"{where}: {complaint}")
