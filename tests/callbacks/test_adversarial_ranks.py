"""Two processes give what one gives."""

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.attacks import PGD
from lightning_poison.callbacks import AdversarialAccuracy, AdversarialPaths


class Fixed(pl.LightningModule):
    """A classifier whose weights never move."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 4))

    def forward(self, inputs):
        return self.net(inputs)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def data(count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 6, 6, generator=generator)
    return TensorDataset(inputs, torch.randint(4, (count,), generator=generator))


def fit(folder, **arguments):
    torch.manual_seed(0)
    callbacks = [
        AdversarialAccuracy(PGD(0.05, steps=3, restarts=1)),
        AdversarialAccuracy(PGD(0.3, steps=3), source=1, target=2, max_samples=40),
        AdversarialPaths("next", step=0.03, max_steps=12, max_samples=33),
    ]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version="run"),
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    # 51 points over two ranks: the sampler repeats one.
    trainer.fit(Fixed(), DataLoader(data(41, seed=0), 8, shuffle=True), DataLoader(data(51, seed=1), 8))
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    with (Path(folder) / "run" / "report" / "paths.csv").open(newline="") as file:
        return metrics, list(csv.reader(file))


@pytest.mark.parametrize("often", [1, 2])  # the second: one epoch without validation, measured when the fit ends
def test_two_ranks_give_what_one_gives(tmp_path, often):
    single = fit(tmp_path / "one", devices=1, check_val_every_n_epoch=often)
    pair = fit(tmp_path / "two", devices=2, strategy="ddp_spawn", check_val_every_n_epoch=often)
    assert set(single[0]) == {
        "val/adv_acc",
        "val/adv_acc_1_to_2",
        "paths/length_median",
        "paths/length_mean",
        "paths/reached",
    }
    assert pair == single
    assert len(single[1]) == 34
