"""Flip lists as CSV files that a person can read and write.

::

    # format_version: 1
    # strategy: "LabelFlips(RandomPoints(per_class=10), NextClass())"
    # seed: 0
    index,old_label,new_label
    17,3,4
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically
from lightning_poison.poisons.flip_list import FlipList

__all__ = ["FORMAT_VERSION", "provenance_lines", "read_flip_list", "write_flip_list"]

FORMAT_VERSION = 1
_HEADER = "index,old_label,new_label"


def write_flip_list(flips: FlipList, path: str | Path) -> Path:
    """Write ``flips`` to ``path``, whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    lines = [*provenance_lines(FORMAT_VERSION, flips.provenance), _HEADER]
    columns = (flips.index.tolist(), flips.old_label.tolist(), flips.new_label.tolist())
    lines += [f"{index},{old},{new}" for index, old, new in zip(*columns, strict=True)]
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


def read_flip_list(path: str | Path) -> FlipList:
    """Read a flip list; one without provenance is accepted.

    Raises:
        UserError: the file is missing, empty or malformed; the message names the file and the row (its line number).
    """
    lines = _lines(Path(path))
    name = str(path)
    provenance: dict[str, Any] = {}
    rows: list[tuple[int, ...]] = []
    numbers: list[int] = []
    header_seen = False
    for number, text in enumerate(lines, start=1):
        line = text.strip()
        if not line:
            continue
        if line.startswith("#"):
            if not header_seen:
                _read_provenance(line, provenance, name, number)
        elif not header_seen:
            _check_header(line, name, number)
            header_seen = True
        else:
            rows.append(_read_row(line, name, number))
            numbers.append(number)
    if not header_seen:
        raise UserError(f"{name} has no header; its first line after the comments must read {_HEADER}")
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
    index, old_label, new_label = table.unbind(1)
    return FlipList(index, old_label, new_label, provenance, name, torch.tensor(numbers, dtype=torch.int64))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no flip list at {path}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the flip list {path}: {error}") from error
    if not text.strip():
        raise UserError(f"{path} is empty; a flip list begins with the header {_HEADER}")
    return text.splitlines()


def _read_provenance(line: str, provenance: dict[str, Any], name: str, number: int) -> None:
    key, colon, value = line.lstrip("#").partition(":")
    if not colon:
        return  # a person's remark
    try:
        provenance[key.strip()] = json.loads(value)
    except json.JSONDecodeError:
        provenance[key.strip()] = value.strip()
    if key.strip() == "format_version" and provenance["format_version"] != FORMAT_VERSION:
        _refuse(name, number, f"format_version must be {FORMAT_VERSION}, got {value.strip()}; update lightning_poison")


def _check_header(line: str, name: str, number: int) -> None:
    columns = [column.strip().strip('"') for column in line.split(",")]
    if columns != _HEADER.split(","):
        _refuse(name, number, f"the header must read {_HEADER}, got {line!r}")


def _read_row(line: str, name: str, number: int) -> tuple[int, ...]:
    cells = line.split(",")
    if len(cells) != 3:
        _refuse(name, number, f"a row has three integers {_HEADER}, got {line!r}")
    try:
        values = tuple(int(cell) for cell in cells)
    except ValueError:
        _refuse(name, number, f"a row has three integers {_HEADER}, got {line!r}")
    if any(abs(value) >= 2**63 for value in values):
        _refuse(name, number, f"a number is too large, got {line!r}")
    return values


def _refuse(name: str, number: int, complaint: str) -> NoReturn:
    raise UserError(f"{name}, row {number}: {complaint}")
