"""Plain torch networks for small images."""

from lightning_poison.nets.building import Normalize, SmallNet
from lightning_poison.nets.defaults import default_nets, net_for
from lightning_poison.nets.small import MLP, DeepCNN, PoolCNN, StrideCNN

__all__ = ["MLP", "DeepCNN", "Normalize", "PoolCNN", "SmallNet", "StrideCNN", "default_nets", "net_for"]
