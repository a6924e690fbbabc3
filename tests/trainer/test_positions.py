from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_poison.trainer.positions import evaluation_positions, sample_positions


@pytest.mark.parametrize("length", [1, 5, 8, 9])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_every_sample_is_counted_once(length: int, ranks: int, batch_size: int) -> None:
    data = TensorDataset(torch.arange(length))
    seen = []
    for rank in range(ranks):
        sampler = DistributedSampler(data, num_replicas=ranks, rank=rank, shuffle=False)
        loader = DataLoader(data, batch_size=batch_size, sampler=sampler)
        for number, (batch,) in enumerate(loader):
            positions = sample_positions(loader.sampler, length, number * batch_size, len(batch))
            real = positions >= 0
            assert batch[real].equal(positions[real])  # without shuffling a position is the index
            seen += batch[real].tolist()
    assert sorted(seen) == list(range(length))


def test_other_samplers_see_everything() -> None:
    assert sample_positions(None, 3, first=2, size=2).tolist() == [2, 3]


@pytest.mark.parametrize("wrap", [lambda loader: loader, lambda loader: [loader], lambda loader: {"a": loader}])
def test_positions_from_a_trainer(wrap: object) -> None:
    loader = DataLoader(TensorDataset(torch.arange(7)), batch_size=3)
    trainer = SimpleNamespace(testing=True, test_dataloaders=wrap(loader), val_dataloaders=None)
    assert evaluation_positions(trainer, 2, 0, 1).tolist() == [6]


@pytest.mark.parametrize("rank", [0, 1])
def test_repeats_of_a_sampler_of_part_of_the_data_set(rank: int) -> None:
    data = TensorDataset(torch.arange(9))
    sampler = DistributedSampler([8, 3, 5], num_replicas=2, rank=rank, shuffle=False)  # type: ignore[arg-type]
    trainer = SimpleNamespace(testing=False, val_dataloaders=DataLoader(data, batch_size=2, sampler=sampler))
    assert evaluation_positions(trainer, 0, 0, 2).tolist() == [[0, 2], [1, -1]][rank]


def test_batches_of_unequal_sizes_are_counted_by_their_samples() -> None:
    loader = DataLoader(TensorDataset(torch.arange(9)), batch_sampler=[[0, 1, 2], [3, 4, 5, 6], [7, 8]])  # type: ignore[arg-type]
    trainer = SimpleNamespace(testing=False, val_dataloaders=loader)
    assert evaluation_positions(trainer, 2, 0, 2, first=7).tolist() == [7, 8]
