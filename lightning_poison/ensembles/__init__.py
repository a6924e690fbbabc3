"""Many small networks, trained together."""

from lightning_poison.ensembles.recipe import TrainedNetwork, TrainingRecipe
from lightning_poison.ensembles.training import train_networks

__all__ = ["TrainedNetwork", "TrainingRecipe", "train_networks"]
