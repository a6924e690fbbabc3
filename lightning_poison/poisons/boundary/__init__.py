"""Selectors by the length of the adversarial path to the decision boundary."""

from lightning_poison.poisons.boundary.path_lengths import (
    FarthestFromBoundary,
    NearestToBoundary,
    PathLengthBucket,
    PathSelector,
    PathTarget,
)

__all__ = ["FarthestFromBoundary", "NearestToBoundary", "PathLengthBucket", "PathSelector", "PathTarget"]
