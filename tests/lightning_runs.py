"""Data, a model that writes down what it learns from, and a Trainer, of either Lightning package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from lightning_poison._lightning import lightning_packages

PACKAGES = lightning_packages()


def small_weights(layer: nn.Linear) -> nn.Linear:
    """Weights in [-0.1, 0.1] that are the same every time, whatever the global random state."""
    with torch.no_grad():
        layer.weight.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(1))
        layer.bias.zero_()
    return layer


def model_of(package: Any, net: nn.Module, **sgd: Any) -> Any:
    """It learns by SGD; ``seen`` has a list for every epoch, of rows (*inputs, label) or (*inputs, label, index)."""

    class Model(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net
            self.seen: list[list[tuple[float, ...]]] = []

        def forward(self, inputs):
            return self.net(inputs)

        def on_train_epoch_start(self):
            self.seen.append([])

        def training_step(self, batch, batch_idx):
            inputs, labels, *_ = batch
            self.seen[-1] += [(*row[0].flatten().tolist(), *map(int, row[1:])) for row in zip(*batch, strict=True)]
            return cross_entropy(self(inputs), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), **sgd)

    return Model()


def data_of(package: Any, dataset: Dataset[Any], **loader: Any) -> Any:
    """A data module with a training loader, in batches of 8 and shuffled unless told otherwise."""

    class Data(package.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(dataset, **{"batch_size": 8, "shuffle": True, **loader})

    return Data()


def trainer_of(package: Any, folder: Path, *callbacks: Any, **arguments: Any) -> Any:
    """A quiet Trainer of two epochs."""
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
        "callbacks": list(callbacks),
    }
    return package.Trainer(**{**settings, **arguments})


def notes_of(callback: Any) -> dict[str, str]:
    """By key, how the callback says that it measured."""
    return {metric.key: metric.note for metric in callback.report_metrics()}
