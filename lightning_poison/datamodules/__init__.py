"""Clean data, and the data module that poisons any other."""

from lightning_poison.datamodules.digits import Digits
from lightning_poison.datamodules.dogfish import Dogfish
from lightning_poison.datamodules.image_folder import ImageFolder
from lightning_poison.datamodules.imdb import IMDB
from lightning_poison.datamodules.labels import dataset_labels, fingerprint
from lightning_poison.datamodules.poisoned import PoisonedDataModule
from lightning_poison.datamodules.poisoned_dataset import PoisonedDataset, find_poisoned_dataset
from lightning_poison.datamodules.torchvision_data import CIFAR10, MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "IMDB",
    "MNIST",
    "Digits",
    "Dogfish",
    "FashionMNIST",
    "ImageFolder",
    "PoisonedDataModule",
    "PoisonedDataset",
    "dataset_labels",
    "find_poisoned_dataset",
    "fingerprint",
]
