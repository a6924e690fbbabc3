"""Run by test_crafting_ranks.py: strategies of which every rank would choose other points, on one or two processes."""

from __future__ import annotations

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
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks import CraftFlips, PoisonMemorization
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import Candidates, LabelFlips, PlacedPoisons, ScoreSelector
from lightning_poison.poisons.surrogates import surrogate_network, surrogate_scores
from tests.lightning_runs import model_of, small_weights, trainer_of
from tests.rank_runs import write_report

LABELS = torch.arange(48) % 3
INPUTS = torch.rand(48, 4, generator=torch.Generator().manual_seed(0)) + torch.eye(4)[LABELS]
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


class Data(pl.LightningDataModule):
    def setup(self, stage):
        if torch.distributed.is_initialized():  # from now on ranks wait for each other for a few seconds only
            torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=SECONDS))

    def train_dataloader(self):
        return DataLoader(TensorDataset(INPUTS, LABELS), batch_size=4, shuffle=True)


def fit(folder: Path, devices: int, data: Any, *callbacks: Any) -> Any:
    model = model_of(pl, small_weights(nn.Linear(4, 3)), lr=0.3)
    strategy = "ddp" if devices > 1 else "auto"
    trainer_of(pl, folder, *callbacks, devices=devices, strategy=strategy).fit(model, data)
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
        "bias": model.net.bias.tolist(),
    }
    try:
        fit(folder / f"failing{devices}", devices, PoisonedDataModule(Data(), LabelFlips(Failing(count=1))))
    except UserError as error:
        report["error"] = str(error)
    write_report(folder, devices, report)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
