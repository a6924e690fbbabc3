"""The networks and the images that the attacks are timed on."""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_poison.datamodules import MNIST
from lightning_poison.nets import PoolCNN, StrideCNN

__all__ = ["NETWORKS", "banded_images", "trained_network"]

NETWORKS = {"PoolCNN": PoolCNN, "StrideCNN": StrideCNN}

TRAINING = 10_000
EPOCHS = 2


def banded_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random images with a bright band that gives the label away: (count, 1, 28, 28) in [0, 1] and labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 28, 28, generator=generator) * 0.7
    labels = torch.randint(10, (count,), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 2 * label : 2 * label + 4] += 0.3
    return images, labels


@cache
def trained_network(kind: str = "PoolCNN") -> tuple[nn.Module, Tensor, Tensor]:
    """The network after two epochs, and images that it has not seen.

    The images are real MNIST where ``LIGHTNING_POISON_DATA`` names a folder with it, else made up.
    """
    images, labels = _images()
    torch.manual_seed(0)
    net = NETWORKS[kind]()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINING).split(128):
            loss = cross_entropy(net(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval(), images[TRAINING:], labels[TRAINING:]


@cache
def _images() -> tuple[Tensor, Tensor]:
    root = os.environ.get("LIGHTNING_POISON_DATA")
    if root is None:
        return banded_images(TRAINING + 2000, seed=0)
    data = MNIST(root, download=False)
    data.setup("test")
    data.setup("fit")
    training = data.train_dataloader().dataset
    test = data.test_dataloader().dataset
    parts = [training[row] for row in range(TRAINING)] + [test[row] for row in range(2000)]
    return torch.stack([image for image, _ in parts]), torch.tensor([int(label) for _, label in parts])
