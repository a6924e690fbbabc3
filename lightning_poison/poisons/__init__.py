"""Which training labels are flipped, and to what."""

from lightning_poison.poisons.base import Candidates, Poison, Selector
from lightning_poison.poisons.boundary import FarthestFromBoundary, NearestToBoundary, PathLengthBucket
from lightning_poison.poisons.budget import BudgetedSelector, ScoreSelector
from lightning_poison.poisons.difficulty import ForgettingEvents, HighestLoss
from lightning_poison.poisons.flip_list import FlipList
from lightning_poison.poisons.from_file import FromFile
from lightning_poison.poisons.graphs import (
    ClassGraphDegree,
    ClassGraphIntersection,
    ColouringScore,
    DominatingSet,
    FeatureSpace,
    InputSpace,
    PCASpace,
)
from lightning_poison.poisons.influence import InfluenceScore, TrajectoryMatching
from lightning_poison.poisons.label_flips import LabelFlips
from lightning_poison.poisons.meta import GumbelFlips, Medoids, MetaFlips
from lightning_poison.poisons.points import (
    CleanLabelPerturbation,
    GivenMeans,
    PlacedPoisons,
    PointsFromFile,
    PoisonPoints,
    TrainingMeans,
)
from lightning_poison.poisons.poison_list import PoisonList
from lightning_poison.poisons.random_points import LabelNoise, RandomPoints
from lightning_poison.poisons.relabellings import NewClass, NextClass, RandomOther, Relabelling, ToClass
from lightning_poison.poisons.training_set import TrainingSet

__all__ = [
    "BudgetedSelector",
    "Candidates",
    "ClassGraphDegree",
    "ClassGraphIntersection",
    "CleanLabelPerturbation",
    "ColouringScore",
    "DominatingSet",
    "FarthestFromBoundary",
    "FeatureSpace",
    "FlipList",
    "ForgettingEvents",
    "FromFile",
    "GivenMeans",
    "GumbelFlips",
    "HighestLoss",
    "InfluenceScore",
    "InputSpace",
    "LabelFlips",
    "LabelNoise",
    "Medoids",
    "MetaFlips",
    "NearestToBoundary",
    "NewClass",
    "NextClass",
    "PCASpace",
    "PathLengthBucket",
    "PlacedPoisons",
    "PointsFromFile",
    "Poison",
    "PoisonList",
    "PoisonPoints",
    "RandomOther",
    "RandomPoints",
    "Relabelling",
    "ScoreSelector",
    "Selector",
    "ToClass",
    "TrainingMeans",
    "TrainingSet",
    "TrajectoryMatching",
]
