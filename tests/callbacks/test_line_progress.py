from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks import LineProgress
from lightning_poison.nets import MLP
from lightning_poison.victims import Victim


class EverySecond(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch % 2 == 1:
            pl_module.log("val/adv_acc", 0.25)


def fit(*callbacks: pl.Callback, epochs: int = 4) -> None:
    data = DataLoader(TensorDataset(torch.rand(8, 1, 4, 4), torch.arange(8) % 2), batch_size=4)
    trainer = pl.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, callbacks=[*callbacks])
    trainer.fit(Victim(MLP(num_classes=2, image_size=4)), data, data)


def test_one_line_an_epoch_with_what_was_measured_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    fit(EverySecond(), LineProgress())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("val/acc" in line and "train/loss" in line for line in lines)
    assert ["val/adv_acc" in line for line in lines] == [False, True, False, True]


def test_long_epochs_speak_in_between(capsys: pytest.CaptureFixture[str]) -> None:
    fit(LineProgress(seconds_between_lines=0), epochs=1)
    assert "epoch 1/1  batch 1/2" in capsys.readouterr().err


def test_it_can_be_silenced(capsys: pytest.CaptureFixture[str]) -> None:
    bar = LineProgress()
    bar.disable()
    fit(bar, epochs=1)
    assert "epoch" not in capsys.readouterr().err
