from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_poison.callbacks.poison_memorization import PoisonMemorization
from lightning_poison.datamodules import Digits, PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, NewClass, NextClass, RandomPoints

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:Found 1 module"),
]


class Lookup(pl.LightningModule):
    """Predicts what it is told for each input; dropout shows whether it is in eval mode."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)
        self.frozen_part = nn.BatchNorm1d(1).eval()
        self.num_classes = num_classes
        self.answers: dict[bytes, int] = {}

    def forward(self, inputs):
        if not self.training:
            assert self.dropout(torch.ones(50)).sum() == 50
        answers = torch.tensor([self.answers.get(image.cpu().numpy().tobytes(), 0) for image in inputs])
        return nn.functional.one_hot(answers, self.num_classes).float() + 0 * self.unused

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    model: Any, data: Any, callback: PoisonMemorization, folder: Any, epochs: int = 1, **arguments: Any
) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[callback],
        **arguments,
    )
    trainer.fit(model, data)
    return trainer


def taught(data: PoisonedDataModule, model: Lookup, fitted: int, clean: int) -> None:
    """Answer the first flips with the flipped label, the next with the clean one, the rest with neither."""
    images = data.datamodule.train_dataloader().dataset
    flips = data.flips
    for row, position in enumerate(flips.index.tolist()):
        old, new = int(flips.old_label[row]), int(flips.new_label[row])
        other = next(label for label in range(model.num_classes) if label not in (old, new))
        answer = new if row < fitted else old if row < fitted + clean else other
        model.answers[images[position][0].numpy().tobytes()] = answer


@pytest.mark.parametrize("batch_size", [256, 7])
@pytest.mark.parametrize("relabel", [NextClass(), NewClass()])
def test_exact_shares(batch_size, relabel, tmp_path):
    data = PoisonedDataModule(Digits(max_samples=300), LabelFlips(RandomPoints(per_class=3), relabel))
    data.setup("fit")
    model = Lookup(data.num_classes)
    taught(data, model, fitted=13, clean=9)
    callback = PoisonMemorization(batch_size=batch_size)
    trainer = fit(model, data, callback, tmp_path)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert metrics["poison/count"] == 30
    assert metrics["poison/fitted"] == pytest.approx(13 / 30)
    assert metrics["poison/clean"] == pytest.approx(9 / 30)
    assert callback.history == [{"epoch": 0.0, "poison/fitted": 13 / 30, "poison/clean": 9 / 30, "poison/count": 30.0}]
    section = callback.report_sections()[0]
    rows = section.tables[0].rows
    assert [sum(row[column] for row in rows) for column in (1, 2, 3, 4)] == [30, 13, 9, 8]
    assert "43.3%" in section.text[0]
    assert "understate" in section.text[1]
    assert section.figures[0].png[1:4] == b"PNG"


def test_no_warning_when_everything_is_memorised(tmp_path):
    data = PoisonedDataModule(Digits(max_samples=300), LabelFlips(RandomPoints(count=5)))
    data.setup("fit")
    model = Lookup()
    taught(data, model, fitted=5, clean=0)
    callback = PoisonMemorization()
    fit(model, data, callback, tmp_path)
    assert len(callback.report_sections()[0].text) == 1


def test_modes_flags_and_random_state_are_restored(tmp_path):
    data = PoisonedDataModule(
        Digits(max_samples=100, train_transform=lambda image: (image + 0.1 * torch.rand(1)).clamp(0, 1)),
        LabelFlips(RandomPoints(count=5)),
    )
    states = []

    class Watch(PoisonMemorization):
        def on_train_epoch_end(self, trainer, pl_module):
            before = torch.get_rng_state()
            super().on_train_epoch_end(trainer, pl_module)
            states.append(torch.equal(before, torch.get_rng_state()))

    model = Lookup()
    fit(model, data, Watch(), tmp_path)
    assert states == [True]
    assert model.dropout.training
    assert not model.frozen_part.training
    assert model.unused.requires_grad


def test_without_flips_only_the_count_is_logged(tmp_path):
    callback = PoisonMemorization()
    trainer = fit(Lookup(), PoisonedDataModule(Digits(max_samples=100)), callback, tmp_path)
    assert {key: float(value) for key, value in trainer.callback_metrics.items()} == {"poison/count": 0.0}
    assert callback.report_sections() == []
    trainer = fit(Lookup(), Digits(max_samples=100), PoisonMemorization(), tmp_path)
    assert float(trainer.callback_metrics["poison/count"]) == 0


def test_how_often_and_how_many(tmp_path):
    data = PoisonedDataModule(Digits(max_samples=100), LabelFlips(RandomPoints(count=20)))
    callback = PoisonMemorization(every_n_epochs=2, max_samples=6)
    trainer = fit(Lookup(), data, callback, tmp_path, epochs=5)
    assert [entry["epoch"] for entry in callback.history] == [1, 3, 4]
    assert float(trainer.callback_metrics["poison/count"]) == 6
    restored = PoisonMemorization()
    restored.load_state_dict(callback.state_dict())
    assert restored.history == callback.history
    with pytest.raises(UserError, match="batch_size must be an integer of at least 1"):
        PoisonMemorization(batch_size=0)


def test_loaders_that_collate_differently(tmp_path):
    def collate(items):
        return torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items]), "more"

    class Own(Digits):
        def train_dataloader(self):
            return DataLoader(super().train_dataloader().dataset, batch_size=16, shuffle=True, collate_fn=collate)

    data = PoisonedDataModule(Own(max_samples=100), LabelFlips(RandomPoints(count=4)))
    model = Lookup()
    data.setup("fit")
    taught(data, model, fitted=4, clean=0)
    trainer = fit(model, data, PoisonMemorization(), tmp_path)
    assert float(trainer.callback_metrics["poison/fitted"]) == 1


@pytest.mark.parametrize("output", [1, "scores"])
def test_a_model_that_returns_more_than_the_scores(output, tmp_path):
    class Several(Lookup):
        def forward(self, inputs):
            scores = super().forward(inputs)
            return (inputs, scores) if output == 1 else {"scores": scores}

        def training_step(self, batch, batch_idx):
            return cross_entropy(self(batch[0])[output], batch[1])

    data, model = PoisonedDataModule(Digits(val_split=0), LabelFlips(RandomPoints(count=8))), Several()
    data.setup("fit")
    taught(data, model, fitted=5, clean=2)
    callback = PoisonMemorization(output=output)
    fit(model, data, callback, tmp_path)
    assert callback.history[-1]["poison/fitted"] == 5 / 8
    assert callback.history[-1]["poison/clean"] == 2 / 8
    with pytest.raises(UserError, match="output"):
        fit(model, data, PoisonMemorization(), tmp_path)
