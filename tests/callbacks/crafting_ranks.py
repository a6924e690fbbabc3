"""Run by test_crafting_ranks.py: strategies of which every rank would choose other points, on one or two processes."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks import CraftFlips, PoisonMemorization
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import Candidates, LabelFlips, PlacedPoisons, ScoreSelector
from lightning_poison.poisons.surrogates import surrogate_network, surrogate_scores

POINTS = 48
RANK = int(os.environ.get("LOCAL_RANK", "0"))
SECONDS = 3
CALLS: list[str] = []


@dataclass(frozen=True)
class OfThisRank(ScoreSelector):
    """First points on rank zero, last points on the others; slow."""

    seconds: float = 0.0

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        CALLS.append("OfThisRank")
        time.sleep(self.seconds)
        return index.double() * (1 if RANK else -1)


@dataclass(frozen=True)
class LeastSure(ScoreSelector):
    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        CALLS.append("LeastSure")
        training_set = candidates.training_set
        scores = surrogate_scores(surrogate_network(None, training_set, seed), training_set.inputs[index])
        return -scores.log_softmax(dim=1).gather(1, training_set.labels[index, None])[:, 0]


@dataclass(frozen=True)
class Failing(ScoreSelector):
    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        raise UserError("this strategy has no answer; take another")


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.seen: list[list[float]] = []

    def forward(self, inputs):
        return self.net(inputs)

    def training_step(self, batch, batch_idx):
        self.seen += [[self.current_epoch, *row.tolist(), int(label)] for row, label in zip(*batch, strict=True)]
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)


class Data(pl.LightningDataModule):
    def setup(self, stage):
        if torch.distributed.is_initialized():  # from now on ranks wait for each other for a few seconds only
            torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=SECONDS))

    def train_dataloader(self):
        labels = torch.arange(POINTS) % 3
        inputs = torch.rand(POINTS, 4, generator=torch.Generator().manual_seed(0)) + torch.eye(4)[labels]
        return DataLoader(TensorDataset(inputs, labels), batch_size=4, shuffle=True)


def fit(folder: Path, devices: int, data: Any, *callbacks: Any) -> Model:
    model = Model()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
    )
    trainer.fit(model, data)
    return model


def main(folder: Path, devices: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    slow = PoisonedDataModule(Data(), LabelFlips(OfThisRank(count=5, seconds=2 * SECONDS if devices > 1 else 0)))
    fit(folder / f"slow{devices}", devices, slow)
    craft = CraftFlips(LabelFlips(LeastSure(per_class=2)))
    own = CraftFlips(LabelFlips(OfThisRank(count=4)), name="own")
    model = fit(folder / f"crafted{devices}", devices, Data(), craft, own)
    placed = PoisonedDataModule(Data(), PlacedPoisons(distance=0.5, per_class=1))
    adding = fit(folder / f"placed{devices}", devices, placed, PoisonMemorization())
    report = {
        "placed": placed.flips.inputs.tolist(),
        "seen": adding.seen,
        "slow": slow.flips.index.tolist(),
        "crafted": craft.flips.index.tolist(),
        "own": own.flips.index.tolist(),
        "calls": list(CALLS),
        "weights": model.net.weight.tolist(),
    }
    try:
        fit(folder / f"failing{devices}", devices, PoisonedDataModule(Data(), LabelFlips(Failing(count=1))))
    except UserError as error:
        report["error"] = str(error)
    (folder / f"rank{RANK}of{devices}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
