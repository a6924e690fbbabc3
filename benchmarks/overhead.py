"""What the Trainer and the callbacks cost beside a hand-written loop that does the same work."""

from __future__ import annotations

import logging
import tempfile
import warnings

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import banded_images
from lightning_poison.attacks import PGD
from lightning_poison.callbacks import AdversarialAccuracy, PoisonMemorization
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.nets import PoolCNN
from lightning_poison.poisons import LabelFlips, NextClass, RandomPoints
from lightning_poison.victims import Victim

__all__ = ["run"]

TARGET = 1.05
TRAINING, VALIDATION, EPOCHS, BATCH = 6000, 512, 4, 128
# Without early exit, so that both sides take the same number of steps whatever the victim has learnt.
ATTACK = PGD(eps=0.1, steps=20, losses=("cross_entropy",), success="last iterate")


class _Images(pl.LightningDataModule):
    """Random images with a bright band that gives the label away."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        self.training, self.validation = (
            TensorDataset(*banded_images(n, seed)) for seed, n in enumerate((TRAINING, VALIDATION))
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.training, batch_size=BATCH, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.validation, batch_size=BATCH)


def run() -> list[Row]:
    """Four epochs of training, each followed by accuracy, PGD and the share of flips fitted."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data = _Images()
    ours, by_hand = paired_seconds(lambda: _with_callbacks(data), lambda: _by_hand(data))
    ratio = median_ratio(ours, by_hand)
    return [row("overhead", "Trainer with PoisonedDataModule and callbacks", "hand-written loop", ratio, TARGET)]


def _victim() -> Victim:
    torch.manual_seed(0)
    return Victim(PoolCNN, num_classes=10)


def _poisoned(data: _Images) -> PoisonedDataModule:
    return PoisonedDataModule(data, LabelFlips(RandomPoints(per_class=10), NextClass()), seed=0)


def _with_callbacks(data: _Images) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            callbacks=[AdversarialAccuracy(ATTACK), PoisonMemorization()],
        )
        trainer.fit(_victim(), _poisoned(data))


def _by_hand(data: _Images) -> None:
    victim, poisoned = _victim(), _poisoned(data)
    optimizer = torch.optim.Adam(victim.parameters())
    loader = poisoned.train_dataloader()
    flips = poisoned.flips
    for _ in range(EPOCHS):
        right, total = torch.tensor(0), torch.tensor(0.0)
        for inputs, labels in loader:
            scores = victim(inputs)
            loss = cross_entropy(scores, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += (scores.argmax(1) == labels).sum()
            total += loss.detach() * len(labels)
        for inputs, labels in data.val_dataloader():
            with torch.no_grad():
                scores = victim(inputs)
                right += (scores.argmax(1) == labels).sum()
                total += cross_entropy(scores, labels) * len(labels)
            ATTACK(victim, inputs, labels)
        with torch.no_grad():
            victim(data.training.tensors[0][flips.index]).argmax(1)
