"""Plain torch networks for small images."""

from lightning_poison.nets.base import SmallNet
from lightning_poison.nets.deep_cnn import DeepCNN
from lightning_poison.nets.defaults import default_nets, net_for
from lightning_poison.nets.mlp import MLP
from lightning_poison.nets.normalize import Normalize
from lightning_poison.nets.pool_cnn import PoolCNN
from lightning_poison.nets.stride_cnn import StrideCNN

__all__ = ["MLP", "DeepCNN", "Normalize", "PoolCNN", "SmallNet", "StrideCNN", "default_nets", "net_for"]
