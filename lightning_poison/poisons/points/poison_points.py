"""Poisons that are inputs, as a list, as files, and as what makes them: what a flip list is for flips.

A list is written as a torch file that holds everything, and a table beside it that a person can read.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import lightning_poison
from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.poisons.base import Poison
from lightning_poison.poisons.description import arguments, describe
from lightning_poison.poisons.flip_list import provenance_lines
from lightning_poison.poisons.poison_list import PoisonList
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["PointPoison", "PointsFromFile", "PoisonPoints", "check_points_path"]

_FORMAT_VERSION = 1
_COLUMNS = ("index", "inputs", "old_label", "new_label", "distance")
_SHOWN = ("index", "old_label", "new_label", "distance")  # what the table has of them


# --- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PoisonPoints(PoisonList):
    """Points that replace training points or are added to them.

    Inputs are stored as training sees them, after the data's own transforms; random augmentation does not reach them.

    Args:
        index: shape (b,), int64: positions in the training set of the points that are replaced; -1 for an added point.
        inputs: shape (b, ...), float32.
        old_label: shape (b,), int64: the clean label of a replaced point; of an added one the class that it belongs to.
        new_label: shape (b,), int64: the label in the poisoned data; it may be the old one.
        distance: shape (b,), float64: how far from its clean input, or from its class mean, in the norm that the
            provenance names; NaN where unknown. None: unknown for all.
        provenance: strategy, arguments, seed, fingerprint of the data, ...: plain values that JSON can hold.
        source: the file that the points were read from.

    Raises:
        UserError: lengths differ, an index is below -1 or listed twice, a label is negative, or an input is not finite.

    Example:
        >>> points = PoisonPoints(torch.tensor([1, -1]), torch.rand(2, 4), torch.tensor([0, 1]), torch.tensor([0, 0]))
        >>> points.apply(torch.tensor([1, 0, 1])), points.positions(3)
        (tensor([1, 0, 1, 0]), tensor([1, 3]))
    """

    file_name: ClassVar[str] = "points.pt"
    title: ClassVar[str] = "Poison points"
    reader: ClassVar[str] = "PointsFromFile"

    index: Tensor
    inputs: Tensor = field(repr=False)
    old_label: Tensor
    new_label: Tensor
    distance: Tensor | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    def __post_init__(self) -> None:
        for name in ("index", "old_label", "new_label"):
            object.__setattr__(self, name, self._column(name))
        if not self.inputs.is_floating_point() or self.inputs.ndim < 2 or not torch.isfinite(self.inputs).all():
            shape, kind = tuple(self.inputs.shape), self.inputs.dtype
            raise UserError(f"inputs must be finite floats of shape (b, ...), got shape {shape}, dtype {kind}")
        object.__setattr__(self, "inputs", self.inputs.detach().to("cpu", torch.float32))
        count = len(self.index)
        distance = torch.full((count,), torch.nan) if self.distance is None else self.distance
        object.__setattr__(self, "distance", distance.detach().cpu().double())
        lengths = {name: len(getattr(self, name)) for name in ("inputs", "old_label", "new_label", "distance")}
        if set(lengths.values()) != {count}:
            raise UserError(f"{self.name}: every column must have the length of index, {count}, got {lengths}")
        object.__setattr__(self, "provenance", dict(self.provenance))
        replaced = self.index[self.index >= 0]
        if (self.index < -1).any() or len(set(replaced.tolist())) < len(replaced):
            raise UserError(f"{self.name}: index must be -1 for an added point, and no point may be replaced twice")
        if (self.old_label < 0).any() or (self.new_label < 0).any():
            raise UserError(f"{self.name}: labels must be at least 0")

    @property
    def name(self) -> str:
        """How messages call these points."""
        return self.source or "the poison points"

    def same_points(self, other: PoisonPoints) -> bool:
        """Whether both hold the same rows; distances and provenance may differ."""
        names = ("index", "inputs", "old_label", "new_label")
        return all(torch.equal(getattr(self, name), getattr(other, name)) for name in names)

    def apply(self, labels: Tensor) -> Tensor:
        """The labels of the poisoned data, shape (n + added,).

        Raises:
            UserError: an index lies outside, or an old label is not the one found.
        """
        self._check_old_labels(labels)
        return super().apply(labels)

    def input_at(self, row: int, clean: Any) -> Any:
        """The input of a row, a tensor or an array as ``clean`` is."""
        if isinstance(clean, np.ndarray):
            return self.inputs[row].numpy().astype(clean.dtype)
        return self.inputs[row].to(clean.dtype) if isinstance(clean, Tensor) else self.inputs[row].clone()

    def check(self, training_set: TrainingSet, num_classes_after: int | None = None) -> PoisonPoints:
        """Return the points if they were made for this data.

        Args:
            training_set: the clean data.
            num_classes_after: number of classes with the poisons; by default one new class is allowed.

        Raises:
            UserError: the fingerprint differs, an index lies outside, an old label is not the one found, a new label is
                out of range, or the inputs have another shape than the data's.
        """
        made_for = self.provenance.get("fingerprint")
        if made_for and training_set.fingerprint and made_for != training_set.fingerprint:
            raise UserError(
                f"{self.name} were made for other data: their fingerprint is {made_for}, this training set's is "
                f"{training_set.fingerprint}; use the same data, classes, max_samples and seed as then"
            )
        self._check_old_labels(training_set.labels, training_set)
        after = num_classes_after or training_set.num_classes + 1
        if len(self) and int(self.new_label.max()) >= after:
            raise UserError(
                f"{self.name}: new_label {int(self.new_label.max())} is out of range; {after} classes are numbered 0 "
                f"to {after - 1}"
            )
        if len(self) and training_set.dataset is not None:
            self._check_item(training_set.dataset)
        return self

    def write(self, path: str | Path) -> Path:
        """Write the points as a torch file, and beside it as ``.csv`` for people, without the inputs.

        Each file is written whole or not at all.

        Raises:
            UserError: the folder cannot be written, or ``path`` is that of the table.
        """
        target, state = check_points_path(path), self.state_dict()
        buffer = io.BytesIO()
        torch.save({"format_version": _FORMAT_VERSION, **state}, buffer)
        write_atomically(target.with_suffix(".csv"), _table(state))
        return write_atomically(target, buffer.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> PoisonPoints:
        """Read points that :meth:`write` wrote.

        Raises:
            UserError: the file is missing or malformed.
        """
        return cls.from_state_dict(_read_points(path), source=str(path))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python, fit for a checkpoint that is loaded with ``weights_only``."""
        return {**{name: getattr(self, name) for name in _COLUMNS}, "provenance": dict(self.provenance)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], source: str | None = None) -> PoisonPoints:
        """Invert :meth:`state_dict`."""
        return cls(**{name: state[name] for name in _COLUMNS}, provenance=state["provenance"], source=source)

    def short(self) -> str:
        """What it is in a heading."""
        return "1 poison point" if len(self) == 1 else f"{len(self):,} poison points"

    def in_words(self) -> str:
        """What was done."""
        parts = []
        for count, what in ((self.num_added, "added"), (len(self) - self.num_added, "replaced")):
            if count or not len(self):
                parts.append(f"{count:,} training {'point was' if count == 1 else 'points were'} {what}")
        return " and ".join(parts)

    def _check_old_labels(self, labels: Tensor, training_set: TrainingSet | None = None) -> None:
        """Compare with the labels of the whole data set, or of those of its points that are trained on."""
        labels, replaced = labels.long(), self.index >= 0
        index, old = self.index[replaced], self.old_label[replaced]
        if training_set is not None and training_set.positions is not None:
            rows = training_set.rows_of(index)
            if (rows < 0).any():
                raise UserError(
                    f"{self.name}: index {int(index[rows < 0][0])} is not among the {training_set.num_points} points "
                    "that the training loader's sampler yields; it would never be trained on"
                )
            found = labels[rows]
        elif len(index) and int(index.max()) >= labels.numel():
            raise UserError(
                f"{self.name}: index {int(index.max())} is outside of the training set of {labels.numel()} points"
            )
        else:
            found = labels[index]
        wrong = found != old
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise UserError(
                f"{self.name}: old_label is {int(old[at])}, but training point {int(index[at])} has label "
                f"{int(found[at])}; the points belong to other data"
            )

    def _check_item(self, dataset: Any) -> None:
        with kept_random_state():
            item = dataset[0]
        shape = tuple(np.shape(item[0]))
        if shape != tuple(self.inputs.shape[1:]):
            raise UserError(
                f"{self.name} must have the shape of the training inputs, {shape}, got {tuple(self.inputs.shape[1:])}"
            )
        if self.num_added and len(item) != 2:
            raise UserError(
                f"points can be added to data of (input, label) items only, got items of {len(item)} values; "
                "leave the other values out, or replace points instead"
            )


# --- files ------------------------------------------------------------------------------------------------------------


def check_points_path(path: str | Path) -> Path:
    """Return ``path`` if it can name a torch file that has its table beside it.

    Raises:
        UserError: it ends in ``.csv``, as the table's does.

    Example:
        >>> check_points_path("points.pt").name
        'points.pt'
    """
    target = Path(path)
    if target.suffix == ".csv":
        raise UserError(f"poison points must go to a .pt file, got {path}; their table is written beside it as .csv")
    return target


def _read_points(path: str | Path) -> dict[str, Any]:
    """Read a torch file of poison points; nothing in it is executed.

    Returns:
        the format version, the columns and the provenance, as :meth:`PoisonPoints.state_dict` has them.

    Raises:
        UserError: the file is missing, no such file, or of a later version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no file of poison points at {path}; check the path") from None
    except Exception as error:  # an unpickler that is fed with anything raises anything
        reason = (
            error.strerror if isinstance(error, OSError) else "it is no whole torch file of tensors and plain values"
        )
        raise UserError(f"cannot read the poison points in {path} ({reason}); give the .pt file") from error
    columns: dict[str, Any] = state if isinstance(state, dict) else {}
    version = columns.get("format_version")
    if version is None or "inputs" not in columns:
        raise UserError(f"{path} holds no poison points; give a file that PoisonPoints.write wrote")
    if version != _FORMAT_VERSION:
        raise UserError(f"{path}: format_version must be {_FORMAT_VERSION}, got {version}; update lightning_poison")
    _check_columns(columns, path)
    return columns


def _check_columns(state: dict[str, Any], path: str | Path) -> None:
    for name in _COLUMNS:
        if not isinstance(state.get(name), Tensor):
            got = f"got {type(state[name]).__name__}" if name in state else "which is not there"
            raise UserError(f"{path}: {name} must be a tensor, {got}; give a file that PoisonPoints.write wrote")
    if not isinstance(state.get("provenance"), dict):
        raise UserError(f"{path}: provenance must be a dict; give a file that PoisonPoints.write wrote")


def _table(state: Mapping[str, Any]) -> str:
    lines = [*provenance_lines(_FORMAT_VERSION, state["provenance"]), ",".join(_SHOWN)]
    columns = (state[name].tolist() for name in _SHOWN)
    lines += [f"{index},{old},{new},{far:.6g}" for index, old, new, far in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


# --- poisons ----------------------------------------------------------------------------------------------------------


class PointPoison(Poison):
    """A rule that turns clean training data and a seed into poison points."""

    file_name = PoisonPoints.file_name

    @abstractmethod
    def craft(self, training_set: TrainingSet, seed: int) -> PoisonPoints:
        """The points: the same for the same data and seed, whatever the global random state."""

    def provenance(self, training_set: TrainingSet, seed: int, norm: str) -> dict[str, Any]:
        """What the points record of where they come from.

        Args:
            training_set: the clean data.
            seed: of the draws.
            norm: in which distances are measured.
        """
        return {
            "strategy": describe(self),
            "arguments": arguments(self),
            "seed": seed,
            "norm": norm,
            "fingerprint": training_set.fingerprint,
            "num_points": training_set.num_points,
            "num_classes": training_set.num_classes,
            "num_classes_after": self.num_classes_after(training_set.num_classes),
            "package_version": lightning_poison.__version__,
        }


@dataclass(frozen=True)
class PointsFromFile(PointPoison):
    """Adds and replaces points exactly as a file states them.

    Args:
        path: a ``.pt`` file that :meth:`PoisonPoints.write` wrote.

    Raises:
        UserError: it is no path.
    """

    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, Path)):
            raise UserError(f"path must name a .pt file of poison points, got {self.path!r}; write it as text")

    @cached_property
    def points(self) -> PoisonPoints:
        """What the file holds; read once.

        Raises:
            UserError: the file is missing or malformed.
        """
        return PoisonPoints.read(self.path)

    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes with the points; a file may add one class."""
        highest = int(self.points.new_label.max()) + 1 if len(self.points) else 0
        return min(max(num_classes, highest), num_classes + 1)

    def craft(self, training_set: TrainingSet, seed: int) -> PoisonPoints:  # noqa: ARG002  # the signature is shared
        """The file's points, after checking that they belong to this data.

        Raises:
            UserError: they were made for other data.
        """
        return self.points.check(training_set, self.num_classes_after(training_set.num_classes))
