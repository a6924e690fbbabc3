"""Many small networks, trained together."""

from lightning_poison.ensembles.recipe import TrainingRecipe
from lightning_poison.ensembles.trained import TrainedNetwork
from lightning_poison.ensembles.training import train_networks

__all__ = ["TrainedNetwork", "TrainingRecipe", "train_networks"]
