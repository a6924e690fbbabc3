"""Each row names the sample that it is about, whatever order the loader reads."""

from __future__ import annotations

import csv
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from lightning_poison.callbacks import PredictionWriter
from tests.lightning_runs import PACKAGES, trainer_of

INPUTS = torch.rand(25, 4, generator=torch.Generator().manual_seed(0))


class Stream(IterableDataset[Any]):
    def __iter__(self):
        return iter([(row,) for row in INPUTS[:5]])


def predicted(package, folder, loaders):
    class Model(package.LightningModule):
        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return batch[0].softmax(dim=1)

    writer = PredictionWriter()
    trainer = trainer_of(package, folder, writer)
    trainer.predict(Model(), loaders, return_predictions=False)
    return list(csv.DictReader(writer.path.read_text().splitlines()))


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("order", [{"shuffle": True}, {"sampler": SubsetRandomSampler([7, 2, 19])}, {}])
def test_the_index_is_the_position_in_the_data_set(package, workers, order, tmp_path):
    rows = predicted(package, tmp_path, DataLoader(TensorDataset(INPUTS), 4, num_workers=workers, **order))
    index = [int(row["index"]) for row in rows]
    assert index == ([2, 7, 19] if "sampler" in order else list(range(25)))
    assert [int(row["prediction"]) for row in rows] == INPUTS[index].argmax(dim=1).tolist()


def test_several_loaders_are_told_apart_and_a_stream_has_no_positions(tmp_path):
    rows = predicted(PACKAGES[0], tmp_path, [DataLoader(Stream(), 2), DataLoader(TensorDataset(INPUTS), 10)])
    assert [(row["loader"], row["index"]) for row in rows] == [("0", "")] * 5 + [("1", str(at)) for at in range(25)]
    assert [int(row["prediction"]) for row in rows[:5]] == INPUTS[:5].argmax(dim=1).tolist()
