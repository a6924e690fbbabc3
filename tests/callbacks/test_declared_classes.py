"""Whoever asks for a data module's number of classes takes it as any integer, and does without before ``setup``."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks.craft_flips import clean_training_set
from lightning_poison.callbacks.training_points import clean_num_classes
from lightning_poison.cli.preflight import num_classes_for
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.progress import no_progress
from lightning_poison.poisons import LabelFlips, NewClass, RandomPoints
from lightning_poison.trainer.run_facts import data_facts

DATA = TensorDataset(torch.rand(12, 4), torch.arange(12) % 3)
NUMBERS = [10, np.int64(10), np.array(10), torch.tensor(10), torch.tensor(10, dtype=torch.uint8)]


def unready(self):
    raise RuntimeError("call setup first")


def data_of(num_classes, loaders=lambda loader: loader):
    class Data(pytorch_lightning.LightningDataModule):
        def setup(self):
            """Takes no stage."""

        def train_dataloader(self):
            return loaders(DataLoader(DATA, batch_size=4))

        def test_dataloader(self):
            return DataLoader(DATA, batch_size=4)

    Data.num_classes = num_classes
    return Data()


def trainer_of(data):
    return SimpleNamespace(
        datamodule=data, train_dataloader=data.train_dataloader(), progress_bar_callback=None, lightning_module=None
    )


def asked(data):
    trainer = trainer_of(data)
    return {
        "paths": clean_num_classes(trainer, torch.nn.Linear(4, 6), DATA.tensors[0]),
        "crafting": clean_training_set(trainer, torch.arange(len(DATA))).num_classes,
        "report": data_facts(trainer, None).get("num_classes"),
        "experiment": Subject.of(data, no_progress).num_classes,
        "command line": num_classes_for(data, LabelFlips(RandomPoints(), NewClass()), None),
        "wrapped": PoisonedDataModule(data, LabelFlips(RandomPoints(count=1), NewClass())).num_classes,
    }


@pytest.mark.parametrize("number", NUMBERS)
def test_any_integer(number):
    found = asked(data_of(number))
    expected = {"paths": 10, "crafting": 10, "report": 10, "experiment": 10, "command line": 11, "wrapped": 11}
    assert found == expected
    assert {type(each) for each in found.values()} == {int}


@pytest.mark.parametrize("number", [None, property(unready)])
def test_not_declared_yet(number):
    found = asked(data_of(number))
    assert found == {"paths": 6, "crafting": 3, "report": None, "experiment": 3, "command line": None, "wrapped": 4}


@pytest.mark.parametrize("kind", [list, tuple])
def test_one_loader_in_a_list(kind):
    data = data_of(10, lambda loader: kind([loader]))
    trainer = trainer_of(data)
    assert clean_training_set(trainer, torch.arange(len(DATA))).labels.tolist() == DATA.tensors[1].tolist()
    assert data_facts(trainer, None)["training_points"] == 12
    assert Subject.of(data, no_progress).labels.tolist() == DATA.tensors[1].tolist()
