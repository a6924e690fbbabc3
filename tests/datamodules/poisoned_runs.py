"""Data and a model of either package that say which points they were."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.poisons import LabelFlips, NextClass, RandomPoints

STREAM = torch.Generator().manual_seed(0)
DATA = TensorDataset(torch.rand(60, 4, generator=STREAM), torch.arange(60) % 3, torch.arange(60))
POISON = LabelFlips(RandomPoints(per_class=4), NextClass())


def model_of(package: Any, num_classes: int = 3) -> Any:
    class Model(package.LightningModule):
        def __init__(self):
            super().__init__()
            stream = torch.Generator().manual_seed(1)
            self.net = nn.Linear(4, num_classes)
            with torch.no_grad():
                self.net.weight.uniform_(-1, 1, generator=stream)
                self.net.bias.zero_()
            self.seen: dict[int, list[int]] = {}
            self.labels: dict[int, int] = {}

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, batch_idx):
            inputs, labels, index = batch
            self.seen[self.current_epoch] = self.seen.get(self.current_epoch, []) + index.tolist()
            self.labels |= dict(zip(index.tolist(), labels.tolist(), strict=True))
            return cross_entropy(self(inputs), labels)

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return Model()


def data_of(package: Any, loader: Any = None, **hooks: Any) -> Any:
    def train_dataloader(self):
        return DataLoader(DATA, batch_size=8, shuffle=True) if loader is None else loader()

    names = {"train_dataloader": train_dataloader, **hooks}
    return type("MyData", (package.LightningDataModule,), {"__module__": __name__, **names})()
