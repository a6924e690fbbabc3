"""Run by test_bar_ranks.py: metrics that ranks share, bars that ask for them on rank zero, and every measurement."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_poison.attacks import FGSM
from lightning_poison.callbacks import (
    AdversarialAccuracy,
    AdversarialPaths,
    CraftFlips,
    LabelFlipCertification,
    PoisonMemorization,
    PredictionWriter,
    Report,
    SmoothingCertification,
)
from lightning_poison.certificates import CertifiedRidge, InputSmoothing, RawFeatures
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.poisons import LabelFlips, Medoids, RandomPoints
from lightning_poison.victims import Victim
from tests.lightning_runs import PACKAGES
from tests.rank_runs import write_report

BARS = ("RichProgressBar", "TQDMProgressBar")  # of one package each
CLASSES = 3
POISON = LabelFlips(RandomPoints(per_class=2))


def points(count: int, seed: int) -> TensorDataset:
    stream = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 4, 4, generator=stream), torch.arange(count) % CLASSES)


def fixed_net() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    with torch.no_grad():
        net[1].weight.normal_(generator=torch.Generator().manual_seed(3))
        net[1].bias.zero_()
    return net


def model_of(package: Any, exchanges: bool = True) -> Any:
    """It logs what must be shared by the ranks, to the bar too, and never moves.

    With ``exchanges`` its own hook waits for the other ranks, after all callbacks. (Beside a bar alone that hangs
    without any of our code.)
    """

    class Model(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = fixed_net()
            self.train_acc, self.val_acc, self.silent = (MulticlassAccuracy(CLASSES, average="micro") for _ in range(3))

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.train_acc(logits, batch[1])
            self.silent.update(logits, batch[1])
            self.log("train/own", self.train_acc, on_step=True, on_epoch=True, prog_bar=True)
            loss = nn.functional.cross_entropy(logits, batch[1])
            self.log("train/own_loss", loss, on_epoch=True, prog_bar=True, sync_dist=True)
            return loss

        def validation_step(self, batch, batch_idx):
            self.val_acc(self(batch[0]), batch[1])
            self.log("val/own", self.val_acc, on_epoch=True, prog_bar=True)

        def on_train_epoch_end(self):
            if exchanges:
                self.log("train/after", self.silent.compute() + 1, prog_bar=True)
                self.silent.reset()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    return Model()


def data_of(package: Any) -> Any:
    class Data(package.LightningDataModule):
        num_classes = CLASSES

        def train_dataloader(self):
            return DataLoader(points(36, seed=0), batch_size=6, shuffle=True)

        def val_dataloader(self):
            return DataLoader(points(24, seed=1), batch_size=4)

    return Data()


def shared_value(package: Any) -> Any:
    """Somebody's callback: it logs what is not yet shared, and shows on rank zero what was logged."""

    class Shared(package.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.log("train/shared", 1 / trainer.world_size, sync_dist=True, reduce_fx="sum", prog_bar=True)
            if trainer.is_global_zero:
                print(sorted(trainer.callback_metrics))

        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("val/shared", (2 * trainer.global_rank + 1) / trainer.world_size, sync_dist=True)
            if trainer.is_global_zero:
                print(sorted(trainer.callback_metrics))

    return Shared()


def measuring() -> list[Any]:
    return [
        AdversarialAccuracy([FGSM(0.1), FGSM(0.3, norm="l2")]),
        PoisonMemorization(),
        AdversarialPaths(step=0.1, max_steps=5, every_n_epochs=1, pictures=False),
        LabelFlipCertification(CertifiedRidge(), RawFeatures(), radii=[1], every_n_epochs=1),
        SmoothingCertification(InputSmoothing(n0=10, n=20), radii=[0.1], max_samples=6, every_n_epochs=1),
    ]


def trainer_of(package: Any, folder: Path, devices: int, *callbacks: Any) -> Any:
    return package.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
    )


def fit(
    package: Any, folder: Path, devices: int, model: Any, data: Any, *callbacks: Any, validate: bool = False
) -> dict[str, float]:
    trainer = trainer_of(package, folder, devices, *callbacks)
    trainer.fit(model, data)
    kept = {key: float(value) for key, value in trainer.callback_metrics.items() if not key.endswith("_step")}
    shown = {f"bar {key}": value for key, value in trainer.progress_bar_metrics.items() if key in kept}
    if validate:
        trainer.validate(model, data, verbose=False)
    after = {f"validate {key}": float(value) for key, value in trainer.callback_metrics.items()} if validate else {}
    return {**kept, **shown, **after}


def main(folder: Path, devices: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for package, bar in zip(PACKAGES, BARS, strict=True):
        data, report = PoisonedDataModule(data_of(package), POISON, seed=1), Report()
        callbacks = [shared_value(package), report, *measuring()]
        callbacks.insert(0 if bar == BARS[0] else len(callbacks), getattr(package.callbacks, bar)())
        place = folder / bar / str(devices)
        found[bar] = fit(package, place, devices, model_of(package), data, *callbacks, validate=True)
        found[f"{bar} history"] = report.state_dict()["history"]
    package = pytorch_lightning
    crafted = CraftFlips(LabelFlips(Medoids(per_class=2)))
    bar = package.callbacks.TQDMProgressBar()
    model = model_of(package, exchanges=False)
    fit(package, folder / "crafted" / str(devices), devices, model, data_of(package), bar, crafted)
    found["crafted"] = crafted.flips.index.tolist()
    victim = Victim(fixed_net(), CLASSES, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.0))
    data, bar = PoisonedDataModule(data_of(package), POISON, seed=1), package.callbacks.TQDMProgressBar()
    found["victim"] = fit(package, folder / "victim" / str(devices), devices, victim, data, shared_value(package), bar)
    writer, place = PredictionWriter(), folder / "predicted" / str(devices)
    loader = DataLoader(points(7, seed=2), batch_size=2)
    trainer_of(package, place, devices, writer).predict(victim, loader, return_predictions=False)
    found["predicted"] = None if writer.path is None else writer.path.read_text()
    write_report(folder, devices, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
