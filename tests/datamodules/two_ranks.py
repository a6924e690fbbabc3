"""Run by test_two_ranks.py: fits on one or two processes and writes down what each rank saw."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.callbacks.flip_labels import FlipLabels
from lightning_poison.callbacks.poison_memorization import PoisonMemorization
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.poisons import LabelFlips, RandomPoints
from tests.lightning_runs import data_of, model_of, small_weights, trainer_of
from tests.rank_runs import write_report

POINTS = 25  # odd: one of two ranks repeats a point
INPUTS = torch.rand(POINTS, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, torch.arange(POINTS) % 3, torch.arange(POINTS))
POISON = LabelFlips(RandomPoints(per_class=2))


def data(shuffle: bool = True) -> Any:
    return data_of(pl, DATA, batch_size=4, shuffle=shuffle)


def fit(folder: Path, devices: int, epochs: int, seed: int, data: Any, ckpt_path: Any = None, *callbacks: Any) -> Any:
    pl.seed_everything(seed, verbose=False)
    model = model_of(pl, small_weights(nn.Linear(4, 3)), lr=0.1, momentum=0.9)
    strategy = "ddp" if devices > 1 else "auto"
    trainer = trainer_of(pl, folder, *callbacks, max_epochs=epochs, devices=devices, strategy=strategy)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return model, trainer


def indexed_labels(model: Any) -> list[list[list[float]]]:
    """The index and the label of every point that was seen, epoch by epoch."""
    return [[[index, label] for *_, label, index in epoch] for epoch in model.seen]


def main(folder: Path, devices: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    whole_data = PoisonedDataModule(data(), POISON, seed=1)
    whole, trainer = fit(folder, devices, 3, 1, whole_data, None, PoisonMemorization())
    half_data = PoisonedDataModule(data(), POISON, seed=1)
    _, half = fit(folder, devices, 2, 1, half_data)
    half.save_checkpoint(folder / f"half{devices}.ckpt")
    resumed_data = PoisonedDataModule(data(), POISON, seed=77)
    resumed, _ = fit(folder, devices, 3, 77, resumed_data, folder / f"half{devices}.ckpt")
    flipping = FlipLabels(POISON, seed=1)
    in_order, _ = fit(folder, devices, 1, 1, data(shuffle=False), None, flipping)
    report = {
        "flips": [whole_data.flips.index.tolist(), whole_data.flips.new_label.tolist()],
        "same_flips": all(each.flips.same_flips(whole_data.flips) for each in (resumed_data, flipping)),
        "seen": indexed_labels(whole),
        "resumed": indexed_labels(resumed),
        "in_order": indexed_labels(in_order),
        "same_weights": torch.equal(whole.net.weight, resumed.net.weight),
        "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
    }
    write_report(folder, devices, report)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
