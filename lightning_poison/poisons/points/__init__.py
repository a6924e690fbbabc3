"""Poisons that are inputs: points that are added, and points that are moved."""

from lightning_poison.poisons.points.class_means import ClassMeans, GivenMeans, TrainingMeans
from lightning_poison.poisons.points.clean_label import CleanLabelPerturbation
from lightning_poison.poisons.points.placed import PlacedPoisons
from lightning_poison.poisons.points.point_poison import PointPoison
from lightning_poison.poisons.points.points_from_file import PointsFromFile
from lightning_poison.poisons.points.poison_points import PoisonPoints

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
