"""Two processes give what one gives."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.attacks import FGSM, PGD, SubstituteTransfer
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


class Augmented(TensorDataset):
    """A random brightness each time."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image * (0.5 + 0.5 * torch.rand(1)), label


class Dump(pl.Callback):
    """Writes what the reports would be made of."""

    def __init__(self, folder):
        self.file = Path(folder) / "measured.json"

    def on_fit_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            found = [callback for callback in trainer.callbacks if isinstance(callback, AdversarialAccuracy)]
            entries = [asdict(entry) for callback in found for entry in callback.history]
            self.file.write_text(json.dumps(entries))


SEVERAL = [
    PGD(0.05, steps=3),
    FGSM(0.1, norm="l2"),
    SubstituteTransfer(eps=0.2, own_inputs=8, rounds=1, epochs=1, steps=5),
]


def fit(folder, **arguments):
    torch.manual_seed(0)
    callbacks = [
        AdversarialAccuracy(SEVERAL, target="next", name="several"),
        AdversarialAccuracy([PGD(0.05, steps=3), FGSM(0.1)], eps_sweep=[0.02, 0.1], name="swept"),
        AdversarialAccuracy(PGD(0.05, steps=3, restarts=1)),
        AdversarialAccuracy(PGD(0.3, steps=3), source=1, target=2, max_samples=40),
        AdversarialPaths("next", step=0.03, max_steps=12, max_samples=33),
        AdversarialPaths(step=0.03, max_steps=12, name="free"),
    ]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version="run"),
        callbacks=[*callbacks, Dump(folder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    # 51 points over two ranks: the sampler repeats one.
    trainer.fit(
        Fixed(), DataLoader(Augmented(*data(41, seed=0).tensors), 8, shuffle=True), DataLoader(data(51, seed=1), 8)
    )
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    files = sorted((Path(folder) / "run" / "report").glob("*.csv"))
    tables = {file.name: list(csv.reader(file.open(newline=""))) for file in files}
    return metrics, tables, json.loads((Path(folder) / "measured.json").read_text())


@pytest.mark.parametrize("often", [1, 2])  # the second: one epoch without validation, measured when the fit ends
def test_two_ranks_give_what_one_gives(tmp_path, often):
    single = fit(tmp_path / "one", devices=1, check_val_every_n_epoch=often)
    pair = fit(tmp_path / "two", devices=2, strategy="ddp_spawn", check_val_every_n_epoch=often)
    several = [entry for entry in single[2] if len(entry["each"]) == 3]
    assert {"zero_gradient", "l2"} <= set(several[0]["details"]["pgd"])
    assert {"queries", "agreement"} <= set(several[0]["details"]["substitutetransfer"])
    assert several[0]["samples"] == 51 - 8
    assert set(single[0]) == {
        "val/adv_acc_to_next_several",
        *(f"val/adv_acc_to_next_several_{name}" for name in several[0]["each"]),
        *(f"val/adv_acc_swept{end}" for end in ("", "_pgd", "_fgsm", "_eps_0.02", "_eps_0.1")),
        "val/adv_acc",
        "val/adv_acc_1_to_2",
        "paths/length_median",
        "paths/length_mean",
        "paths/reached",
        "paths/length_median_free",
        "paths/length_mean_free",
        "paths/reached_free",
    }
    assert pair == single
    assert set(single[1]) == {"paths.csv", "suspects.csv", "paths_free.csv", "suspects_free.csv"}
    assert len(single[1]["paths.csv"]) == 34
    assert len(single[1]["paths_free.csv"]) == 42
