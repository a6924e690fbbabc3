"""What strategies that make inputs have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import lightning_poison
from lightning_poison.poisons.base import Poison
from lightning_poison.poisons.description import arguments, describe
from lightning_poison.poisons.points.poison_points import PoisonPoints
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["PointPoison"]


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
