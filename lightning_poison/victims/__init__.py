"""LightningModules to be attacked."""

from lightning_poison.victims.victim import Victim

__all__ = ["Victim"]
