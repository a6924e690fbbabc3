"""Flip lists: what every strategy ends in, with its provenance, and how they are read from and written to CSV.

The files can be read and written by a person::

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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically
from lightning_poison.poisons.poison_list import PoisonList
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["FlipList", "provenance_lines"]

_FORMAT_VERSION = 1
_COLUMNS = ("index", "old_label", "new_label")
_HEADER = ",".join(_COLUMNS)
_DELIMITERS = ",;\t"
_DIGITS = 19  # int64 holds every shorter number
_SHOWN = 40
_NO_JSON = object()


# --- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FlipList(PoisonList):
    """A table ``index, old_label, new_label`` with its provenance.

    Rows are sorted by index on construction.

    Args:
        index: shape (b,), int64: positions in the training set.
        old_label: shape (b,), int64: the clean labels, which guard against other data.
        new_label: shape (b,), int64: the flipped labels.
        provenance: strategy, arguments, seed, fingerprint of the data, ...: plain values that JSON can hold.
        source: the file that the list was read from.
        rows: shape (b,), int64: the line of each flip in that file, for messages.

    Raises:
        UserError: the columns differ in length, an index is negative or appears twice, a label is negative, or a
            new label equals the old one.

    Example:
        >>> flips = FlipList(torch.tensor([2, 0]), torch.tensor([1, 0]), torch.tensor([2, 1]))
        >>> flips.apply(torch.tensor([0, 0, 1]))
        tensor([1, 0, 2])
    """

    file_name: ClassVar[str] = "flips.csv"
    title: ClassVar[str] = "Flipped labels"
    reader: ClassVar[str] = "FromFile"

    index: Tensor
    old_label: Tensor
    new_label: Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    rows: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        columns = {name: self._column(name) for name in _COLUMNS}
        if len({column.numel() for column in columns.values()}) > 1:
            lengths = ", ".join(f"{name} {column.numel()}" for name, column in columns.items())
            raise UserError(f"index, old_label and new_label must have one length, got {lengths}")
        order = torch.argsort(columns["index"], stable=True)
        for name, column in columns.items():
            object.__setattr__(self, name, column[order])
        if self.rows is not None:
            object.__setattr__(self, "rows", self.rows[order])
        object.__setattr__(self, "provenance", dict(self.provenance))
        self._check_rows()

    @classmethod
    def empty(cls, provenance: Mapping[str, Any] | None = None) -> FlipList:
        """A list without flips: the clean run.

        Example:
            >>> len(FlipList.empty())
            0
        """
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(nothing, nothing, nothing, provenance or {})

    def same_flips(self, other: FlipList) -> bool:
        """Whether both lists hold the same rows; the provenance may differ."""
        return all(torch.equal(getattr(self, name), getattr(other, name)) for name in _COLUMNS)

    def apply(self, labels: Tensor) -> Tensor:
        """A copy of ``labels``, shape (n,), in which the listed points carry their new labels.

        Raises:
            UserError: an index lies outside, or an old label is not the one found.
        """
        self._check_old_labels(labels)
        return super().apply(labels)

    def check(self, training_set: TrainingSet, num_classes_after: int | None = None) -> FlipList:
        """Return the list if it was drawn for this data.

        Args:
            training_set: the clean data.
            num_classes_after: number of classes with the flips; by default one new class is allowed.

        Raises:
            UserError: the fingerprint differs, an index lies outside, an old label is not the one found, or a new
                label is out of range; the message names the row.
        """
        drawn_for = self.provenance.get("fingerprint")
        if drawn_for and training_set.fingerprint and drawn_for != training_set.fingerprint:
            raise UserError(
                f"{self.name} was drawn for other data: its fingerprint is {drawn_for}, this training set's is "
                f"{training_set.fingerprint}; use the same data, classes, max_samples and seed as then"
            )
        if training_set.positions is None:
            self._check_old_labels(training_set.labels)
        else:
            self._check_trained(training_set)
        after = num_classes_after or training_set.num_classes + 1
        self._refuse(
            self.new_label >= after,
            lambda at: (
                f"new_label {int(self.new_label[at])} is out of range; {after} classes are numbered 0 to {after - 1}"
            ),
        )
        return self

    def write(self, path: str | Path) -> Path:
        """Write the list as CSV, whole or not at all.

        Raises:
            UserError: the folder cannot be written.
        """
        lines = [*provenance_lines(_FORMAT_VERSION, self.provenance), _HEADER]
        rows = torch.stack([self.index, self.old_label, self.new_label], dim=1).tolist()
        lines += [f"{index},{old},{new}" for index, old, new in rows]
        return write_atomically(path, "\n".join(lines) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> FlipList:
        """Read a list that :meth:`write` or a person wrote.

        Raises:
            UserError: the file is missing or malformed; the message names the file and the row.
        """
        table, provenance, rows = _read_flip_list(path)
        index, old_label, new_label = table.unbind(1)
        return cls(index, old_label, new_label, provenance, str(path), rows)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python, fit for a checkpoint that is loaded with ``weights_only``."""
        return {**{name: getattr(self, name) for name in _COLUMNS}, "provenance": dict(self.provenance)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> FlipList:
        """Invert :meth:`state_dict`.

        Example:
            >>> flips = FlipList(torch.tensor([4]), torch.tensor([0]), torch.tensor([1]), {"seed": 3})
            >>> FlipList.from_state_dict(flips.state_dict()).same_flips(flips)
            True
        """
        return cls(state["index"].cpu(), state["old_label"].cpu(), state["new_label"].cpu(), state["provenance"])

    def short(self) -> str:
        """What it is in a heading."""
        count = len(self)
        return "clean labels" if not count else "1 flipped label" if count == 1 else f"{count:,} flipped labels"

    def in_words(self) -> str:
        """What was done."""
        return f"{len(self):,} training {'label was' if len(self) == 1 else 'labels were'} flipped"

    @property
    def name(self) -> str:
        """How messages call this list."""
        return self.source or "the flip list"

    def _check_rows(self) -> None:
        for name in _COLUMNS:
            column: Tensor = getattr(self, name)
            self._refuse(column < 0, lambda at, c=column, n=name: f"{n} must be at least 0, got {int(c[at])}")
        repeated = torch.zeros(len(self), dtype=torch.bool)
        repeated[1:] = self.index[1:] == self.index[:-1]
        self._refuse(repeated, lambda at: f"index {int(self.index[at])} is listed twice; keep one of its rows")
        self._refuse(
            self.old_label == self.new_label,
            lambda at: f"new_label equals old_label ({int(self.new_label[at])}); a flip must change the label",
        )

    def _check_old_labels(self, labels: Tensor) -> None:
        labels, n = labels.long(), labels.numel()
        self._refuse(
            self.index >= n,
            lambda at: (
                f"index {int(self.index[at])} is outside of the training set; its {n} points are numbered 0 to {n - 1}"
            ),
        )
        self._compare_labels(labels[self.index])

    def _check_trained(self, training_set: TrainingSet) -> None:
        rows = training_set.rows_of(self.index)
        self._refuse(
            rows < 0,
            lambda at: (
                f"index {int(self.index[at])} is not among the {training_set.num_points} points that the training "
                "loader's sampler yields; a flip there would never be trained on"
            ),
        )
        self._compare_labels(training_set.labels[rows])

    def _compare_labels(self, found: Tensor) -> None:
        self._refuse(
            found != self.old_label,
            lambda at: (
                f"old_label is {int(self.old_label[at])}, but training point {int(self.index[at])} has label "
                f"{int(found[at])}; the list belongs to other data"
            ),
        )

    def _refuse(self, wrong: Tensor, complaint: Any) -> None:
        if wrong.any():
            at = int(wrong.nonzero()[0])
            row = int(self.rows[at]) if self.rows is not None else at
            raise UserError(f"{self.name}, row {row}: {complaint(at)}")


# --- files ------------------------------------------------------------------------------------------------------------


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


def _read_flip_list(path: str | Path) -> tuple[Tensor, dict[str, Any], Tensor]:
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
    if key == "format_version" and provenance[key] != _FORMAT_VERSION:
        _refuse(name, number, f"format_version must be {_FORMAT_VERSION}, got {texts[0]}; update lightning_poison")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return _NO_JSON


def _refuse(name: str, number: int, complaint: str, column: str = "") -> NoReturn:
    where = f"{name}, row {number}{', column ' if column else ''}{column}"
    raise UserError(f"{where}: {complaint}")
