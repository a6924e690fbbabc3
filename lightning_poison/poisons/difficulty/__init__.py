"""Selectors by how hard a point is for a network that learns the clean labels."""

from lightning_poison.poisons.difficulty.forgetting_events import ForgettingEvents
from lightning_poison.poisons.difficulty.highest_loss import HighestLoss

__all__ = ["ForgettingEvents", "HighestLoss"]
