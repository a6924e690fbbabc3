"""Run by a test on one process and on two: every measuring callback over loaders of all kinds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

from lightning_poison.attacks import PGD
from lightning_poison.callbacks import (
    AdversarialAccuracy,
    AdversarialPaths,
    LabelFlipCertification,
    PoisonMemorization,
    SmoothingCertification,
)
from lightning_poison.certificates import InputSmoothing, NearestNeighbours, RawFeatures
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.poisons import LabelFlips, RandomPoints

sys.path.insert(0, str(Path(__file__).parents[1]))
from rank_runs import write_report


def points(count: int, seed: int) -> TensorDataset:
    inputs = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs.flatten(1)[:, :3]).argmax(1))


TRAIN, VAL = points(61, 0), points(31, 1)
TRAINED = list(range(0, 61, 2))


class Still(pl.LightningModule):
    """Its weights never move, so that any number of ranks measures the same network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        with torch.no_grad():
            self.net[1].weight[:, :3] += 2 * torch.eye(3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.net(inputs)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


class Data(pl.LightningDataModule):
    def __init__(self, train: Any, val: Any) -> None:
        super().__init__()
        self.train, self.val = train, val

    def train_dataloader(self) -> Any:
        return self.train()

    def val_dataloader(self) -> Any:
        return self.val()


def subset_train() -> DataLoader[Any]:
    return DataLoader(TRAIN, 4, sampler=SubsetRandomSampler(TRAINED))


def measure(folder: Path, devices: int, train: Any, val: Any, *more: Any, **arguments: Any) -> dict[str, Any]:
    smoothing = SmoothingCertification(InputSmoothing(sigma=0.1, n=100, n0=20), max_samples=20)
    accuracy = AdversarialAccuracy(PGD(eps=0.1, steps=3))
    callbacks = [
        accuracy,
        AdversarialAccuracy(PGD(eps=0.1, steps=3), max_samples=12, name="few"),
        AdversarialPaths(max_steps=20, pictures=False),
        PoisonMemorization(),
        LabelFlipCertification(NearestNeighbours(RawFeatures(), 5), radii=[0, 1]),
        smoothing,
        *more,
    ]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=callbacks,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        **arguments,
    )
    data = PoisonedDataModule(Data(train, val), LabelFlips(RandomPoints(per_class=2)), seed=0)
    try:
        trainer.fit(Still(), data)
    except Exception as error:  # noqa: BLE001  # what is raised is what the test looks at
        return {"error": f"{type(error).__name__}: {error}"}
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return {"metrics": values, "samples": accuracy.history[-1].samples, "flips": data.flips.index.tolist()}


class BreaksOnOneRank(AdversarialAccuracy):
    def _measure(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        if trainer.global_rank == trainer.world_size - 1:
            raise RuntimeError("this rank has no memory left")


def main(folder: Path, devices: int) -> None:
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    halves = [Subset(VAL, range(rank, 31, devices))][0]
    mixed = Subset(VAL, range(20) if rank == 0 else range(10, 31))
    own = {"use_distributed_sampler": False}
    found = {
        "dealt": measure(folder, devices, subset_train, lambda: DataLoader(VAL, 4)),
        "shuffled": measure(folder, devices, subset_train, lambda: DataLoader(VAL, 4, shuffle=True)),
        "own halves": measure(folder, devices, subset_train, lambda: DataLoader(halves, 4), **own),
        "each the whole": measure(folder, devices, subset_train, lambda: DataLoader(VAL, 4), **own),
        "own order": measure(
            folder, devices, subset_train, lambda: DataLoader(VAL, 4, sampler=SubsetRandomSampler(range(31)))
        ),
        "broken": measure(
            folder,
            devices,
            subset_train,
            lambda: DataLoader(VAL, 4),
            BreaksOnOneRank(name="broken"),
        ),
        "overlapping": measure(folder, devices, subset_train, lambda: DataLoader(mixed, 4), **own),
    }
    write_report(folder, devices, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
