"""Selectors by the influence of a flip on other points' loss, or on a training run."""

from lightning_poison.poisons.influence.influence_score import InfluenceScore
from lightning_poison.poisons.influence.trajectory_matching import TrajectoryMatching

__all__ = ["InfluenceScore", "TrajectoryMatching"]
