"""Small runs with :class:`AdversarialPaths`, and what they wrote."""

import csv
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.poisons import FlipList


def data(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 6, 6, generator=generator)
    ways = torch.randn(36, 4, generator=torch.Generator().manual_seed(9))
    return TensorDataset(inputs, ((inputs - 0.5).flatten(1) @ ways).argmax(1))


def make_victim(package):
    class Victim(package.LightningModule):
        def __init__(self, lr=0.0, outputs=4):
            super().__init__()
            self.lr = lr
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.net = nn.Sequential(
                    nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, outputs)
                )

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr)

    return Victim


Victim = make_victim(pl)


def make_trainer(*callbacks, package=pl, **arguments):
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return package.Trainer(callbacks=list(callbacks), **(settings | arguments))


def rows_of(trainer, name="paths.csv"):
    with (Path(trainer.log_dir) / "report" / name).open(newline="") as file:
        return [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]


def fit(callback, dataset, package=pl, victim=None, **arguments):
    victim = make_victim(package)() if victim is None else victim
    trainer = make_trainer(callback, package=package, **arguments)
    trainer.fit(victim, DataLoader(dataset, 16, shuffle=True))
    return trainer, victim


def flips_of(labels, positions, new=None):
    old = labels[positions]
    return FlipList(torch.tensor(positions), old, (old + 1) % 4 if new is None else torch.full_like(old, new))
