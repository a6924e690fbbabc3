"""LightningModules to be attacked."""

from lightning_poison.victims.lightning_training import LightningTraining
from lightning_poison.victims.transfer_features import TransferFeatures
from lightning_poison.victims.victim import Victim

__all__ = ["LightningTraining", "TransferFeatures", "Victim"]
