"""Poison points that a file holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lightning_poison.errors import UserError
from lightning_poison.poisons.points.point_poison import PointPoison
from lightning_poison.poisons.points.poison_points import PoisonPoints
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["PointsFromFile"]


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
