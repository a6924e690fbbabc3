"""Run by test_two_ranks.py: fits on one or two processes and writes down what each rank saw."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks.flip_labels import FlipLabels
from lightning_poison.callbacks.poison_memorization import PoisonMemorization
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.poisons import LabelFlips, RandomPoints

POINTS = 25  # odd: one of two ranks repeats a point
POISON = LabelFlips(RandomPoints(per_class=2))


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.seen: list[list[list[int]]] = []

    def forward(self, inputs):
        return self.net(inputs)

    def on_train_epoch_start(self):
        self.seen.append([])

    def training_step(self, batch, batch_idx):
        inputs, labels, index = batch
        self.seen[-1] += torch.stack([index, labels], dim=1).tolist()
        return cross_entropy(self(inputs), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Data(pl.LightningDataModule):
    def __init__(self, shuffle: bool = True) -> None:
        super().__init__()
        self.shuffle = shuffle

    def train_dataloader(self):
        inputs = torch.rand(POINTS, 4, generator=torch.Generator().manual_seed(0))
        dataset = TensorDataset(inputs, torch.arange(POINTS) % 3, torch.arange(POINTS))
        return DataLoader(dataset, batch_size=4, shuffle=self.shuffle)


def fit(folder: Path, devices: int, epochs: int, seed: int, data: Any, ckpt_path: Any = None, **more: Any) -> Any:
    pl.seed_everything(seed, verbose=False)
    model = Model()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        **more,
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return model, trainer


def main(folder: Path, devices: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data = PoisonedDataModule(Data(), POISON, seed=1)
    whole, trainer = fit(folder, devices, 3, 1, data, callbacks=[PoisonMemorization()])
    half_data = PoisonedDataModule(Data(), POISON, seed=1)
    _, half = fit(folder, devices, 2, 1, half_data)
    half.save_checkpoint(folder / f"half{devices}.ckpt")
    resumed_data = PoisonedDataModule(Data(), POISON, seed=77)
    resumed, _ = fit(folder, devices, 3, 77, resumed_data, folder / f"half{devices}.ckpt")
    flipping = FlipLabels(POISON, seed=1)
    in_order, _ = fit(folder, devices, 1, 1, Data(shuffle=False), callbacks=[flipping])
    report = {
        "flips": [data.flips.index.tolist(), data.flips.new_label.tolist()],
        "same_flips": resumed_data.flips.same_flips(data.flips) and flipping.flips.same_flips(data.flips),
        "seen": whole.seen,
        "resumed": resumed.seen,
        "in_order": in_order.seen,
        "same_weights": torch.equal(whole.net.weight, resumed.net.weight),
        "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
    }
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    (folder / f"rank{rank}of{devices}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
