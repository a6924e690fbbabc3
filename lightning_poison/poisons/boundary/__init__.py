"""Selectors by the length of the adversarial path to the decision boundary."""

from lightning_poison.poisons.boundary.nearest import FarthestFromBoundary, NearestToBoundary
from lightning_poison.poisons.boundary.path_length_bucket import PathLengthBucket
from lightning_poison.poisons.boundary.path_selector import PathSelector, PathTarget

__all__ = ["FarthestFromBoundary", "NearestToBoundary", "PathLengthBucket", "PathSelector", "PathTarget"]
