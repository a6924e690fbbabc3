"""Data, a victim and a Trainer of either package to certify beside, and the numbers to expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison._lightning import LightningDataModule
from lightning_poison.callbacks.label_flip_certification import LabelFlipCertification
from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedPoints,
    CertifiedRidge,
    MonteCarloSmoothing,
    RawFeatures,
)

RADII = [0, 1, 3, 8]


def blobs(count: int, seed: int, classes: int = 3) -> TensorDataset:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=stream)
    centres = torch.eye(classes).repeat_interleave(3, dim=1)[:, :8]
    return TensorDataset((centres[labels] + torch.randn(count, 8, generator=stream) * 0.4).clamp(-2, 2), labels)


TRAIN, VAL, TEST = blobs(120, 0), blobs(31, 1), blobs(23, 2)


def expected(train: TensorDataset = TRAIN, points: TensorDataset = VAL, classes: int = 3) -> dict[str, float]:
    learner = CertifiedRidge(RawFeatures(), 0.1).fit(train.tensors[0], train.tensors[1], classes)
    inputs, labels = points.tensors
    return CertifiedPoints(torch.arange(len(labels)), labels, learner.certify(inputs)).values(RADII)


def certification(**arguments: Any) -> LabelFlipCertification:
    method = arguments.pop("method", None) or CertifiedRidge(arguments.pop("features", RawFeatures()), 0.1)
    return LabelFlipCertification(method, **{"radii": RADII, **arguments})


def exact() -> CertifiedRidge:
    return CertifiedRidge(RawFeatures(), 0.1)


def monte_carlo(points: int | None) -> MonteCarloSmoothing:
    return MonteCarloSmoothing(exact(), q=0.1, runs=40, alpha=0.05, points=points, features=RawFeatures())


def with_repeats() -> dict[str, CertifiedLearner]:
    return {"each": exact(), "together": Together(RawFeatures(), 0.1), "shared": monte_carlo(points=31)}


class CountedFeatures(RawFeatures):
    """Counts the points that go through it."""

    points = 0

    def transform(self, inputs: Tensor) -> Tensor:
        self.points += len(inputs)
        return super().transform(inputs)


class Together(CertifiedRidge):
    """Ridge on inputs from which the mean of all evaluation points is taken: it depends on the others."""

    transductive = True

    def certify_features(self, features: Tensor, *arguments: Any) -> Any:
        return super().certify_features(features - features.mean(0), *arguments)


class Data(LightningDataModule):
    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        if num_classes is not None:
            self.num_classes = num_classes
        self.sets: dict[str, TensorDataset] = {}

    def setup(self, stage: str) -> None:
        self.sets.update({"fit": {"train": TRAIN, "val": VAL}, "validate": {"val": VAL}, "test": {"test": TEST}}[stage])

    def train_dataloader(self) -> Any:
        return DataLoader(self.sets["train"], batch_size=16, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.sets["val"], batch_size=7)

    def test_dataloader(self) -> Any:
        return DataLoader(self.sets["test"], batch_size=7)


def victim(package: Any, inputs: int = 8) -> Any:
    class Victim(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 6), nn.Dropout(0.2), nn.Linear(6, 3))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    torch.manual_seed(0)
    return Victim()


def trainer(package: Any, *callbacks: Any, **arguments: Any) -> Any:
    settings = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    checkpoints = {"enable_checkpointing": False, "default_root_dir": Path.cwd()}
    return package.Trainer(callbacks=list(callbacks), **{**settings, **checkpoints, **arguments})


def certified(run: Any) -> dict[str, float]:
    return {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("cert/")}


def same(found: dict[str, float], wanted: dict[str, float]) -> bool:
    return found == pytest.approx(wanted, abs=1e-6) and set(found) == set(wanted)
