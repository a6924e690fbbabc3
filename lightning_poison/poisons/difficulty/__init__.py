"""Selectors by how hard a point is for a network that learns the clean labels."""

from lightning_poison.poisons.difficulty.forgetting_events import ForgettingEvents, HighestLoss

__all__ = ["ForgettingEvents", "HighestLoss"]
