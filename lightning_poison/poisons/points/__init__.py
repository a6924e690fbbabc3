"""Poisons that are inputs: points that are added, and points that are moved."""

from lightning_poison.poisons.points.clean_label import CleanLabelPerturbation
from lightning_poison.poisons.points.placed import ClassMeans, GivenMeans, PlacedPoisons, TrainingMeans
from lightning_poison.poisons.points.poison_points import PointPoison, PointsFromFile, PoisonPoints

__all__ = [
    "ClassMeans",
    "CleanLabelPerturbation",
    "GivenMeans",
    "PlacedPoisons",
    "PointPoison",
    "PointsFromFile",
    "PoisonPoints",
    "TrainingMeans",
]
