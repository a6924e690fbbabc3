"""Which training labels are flipped, and to what."""

from lightning_poison.poisons.base import Poison, Relabelling, Selector
from lightning_poison.poisons.budget import BudgetedSelector, Share
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.flip_list import FlipList
from lightning_poison.poisons.from_file import FromFile
from lightning_poison.poisons.label_flips import LabelFlips
from lightning_poison.poisons.random_points import RandomPoints
from lightning_poison.poisons.ranking import ScoreSelector
from lightning_poison.poisons.relabellings import NewClass, NextClass, RandomOther, ToClass
from lightning_poison.poisons.training_set import TrainingSet

__all__ = [
    "BudgetedSelector",
    "Candidates",
    "FlipList",
    "FromFile",
    "LabelFlips",
    "NewClass",
    "NextClass",
    "Poison",
    "RandomOther",
    "RandomPoints",
    "Relabelling",
    "ScoreSelector",
    "Selector",
    "Share",
    "ToClass",
    "TrainingSet",
]
