"""``foreign_ranks.py FOLDER DEVICES``: a module with a metric in its forward and work beside it, on so many ranks."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from attack_runs import CLASSES, Scorer, data, loader  # noqa: E402
from rank_runs import write_report  # noqa: E402

from lightning_poison.attacks import FGSM, PGD  # noqa: E402
from lightning_poison.callbacks import AdversarialAccuracy  # noqa: E402


class Communicating(Scorer):
    """Every forward synchronises a metric, which ranks that attack differently must not wait for."""

    def __init__(self):
        super().__init__()
        self.mean = MulticlassAccuracy(CLASSES, average="micro", dist_sync_on_step=True)

    def forward(self, inputs):
        scores = super().forward(inputs)
        self.mean(scores.detach(), torch.zeros(len(inputs), dtype=torch.int64))
        return scores

    def validation_step(self, batch, _):
        self(batch[0])
        self.log("val_acc", 0.75)  # half of them are right; on one rank all are, and none on the other
        self.log("val/zeros", self.mean, on_step=False, on_epoch=True)


def every_second_one_is_wrong(count: int = 200) -> TensorDataset:
    """So one of two ranks has nothing to attack."""
    (inputs, _), net = data(count).tensors, Scorer()
    with torch.no_grad():
        return TensorDataset(inputs, (net(inputs).argmax(1) + torch.arange(count) % 2) % CLASSES)


def main(folder: Path, devices: int) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=[AdversarialAccuracy([PGD(0.03, steps=5), FGSM(0.03)], eps_sweep=[0.01, 0.03])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (logged,) = trainer.validate(Communicating(), loader(every_second_one_is_wrong(), batch_size=25), verbose=False)
    said = [str(warning.message) for warning in caught if "its forward is right on" in str(warning.message)]
    write_report(folder, devices, {"logged": logged, "said": said})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
