from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_poison.datamodules.train_loader import EpochShuffle, check_train_loader, plain_shuffle, with_dataset
from lightning_poison.errors import UserError

OLD = TensorDataset(torch.arange(10))
NEW = TensorDataset(torch.arange(10) + 100)


class OwnLoader(DataLoader):
    """Builds its data set itself, and takes arguments that DataLoader does not know."""

    def __init__(self, size, flavour="plain"):
        self.flavour = flavour
        super().__init__(TensorDataset(torch.arange(size)), batch_size=size // 2, shuffle=True)


class Trainer:
    current_epoch = 0


def values(loader):
    return torch.cat([batch[0] for batch in loader]).tolist()


def collate(items):
    return [torch.stack([item[0] for item in items])]


def test_everything_but_the_data_stays():
    stream = torch.Generator()
    loader = DataLoader(OLD, batch_size=3, drop_last=True, collate_fn=collate, generator=stream, timeout=0)
    rebuilt = with_dataset(loader, NEW)
    assert type(rebuilt) is DataLoader
    assert (rebuilt.batch_size, rebuilt.drop_last, rebuilt.collate_fn) == (3, True, collate)
    assert rebuilt.generator is stream
    assert values(rebuilt) == list(range(100, 109))
    assert values(loader) == list(range(9))


def test_workers():
    loader = DataLoader(OLD, batch_size=4, num_workers=1, persistent_workers=True)
    assert values(loader) == list(range(10))
    rebuilt = with_dataset(loader, NEW, EpochShuffle(10, seed=0))
    assert [sorted(values(rebuilt)) for _ in range(2)] == [list(range(100, 110))] * 2


def test_raw_batch_samplers_and_unbatched_loaders():
    batches = [[3, 1], [2]]
    assert values(with_dataset(DataLoader(OLD, batch_sampler=batches), NEW)) == [103, 101, 102]
    rebuilt = with_dataset(DataLoader(OLD, batch_size=None, shuffle=True), NEW, SequentialSampler(NEW))
    assert [int(item[0]) for item in rebuilt] == list(range(100, 110))


def test_loaders_of_ones_own_class():
    rebuilt = with_dataset(OwnLoader(10, "own"), NEW, EpochShuffle(10, seed=0))
    assert isinstance(rebuilt, OwnLoader)
    assert rebuilt.flavour == "own"
    assert sorted(values(rebuilt)) == list(range(100, 110))
    assert [len(batch[0]) for batch in rebuilt] == [5, 5]


@pytest.mark.parametrize(
    ("loader", "shuffles"),
    [
        (DataLoader(OLD, shuffle=True), True),
        (DataLoader(OLD, shuffle=True, generator=torch.Generator()), True),
        (DataLoader(OLD, batch_size=None, shuffle=True), True),
        (DataLoader(OLD), False),
        (DataLoader(OLD, sampler=RandomSampler(OLD, replacement=True)), False),
        (DataLoader(OLD, sampler=RandomSampler(OLD, num_samples=4)), False),
        (DataLoader(OLD, sampler=WeightedRandomSampler([1.0] * 10, 10)), False),
        (DataLoader(OLD, sampler=[1, 2]), False),
        (DataLoader(OLD, batch_sampler=[[1], [2]]), False),
        (DataLoader(OLD, batch_sampler=BatchSampler(RandomSampler(OLD), 2, False)), True),
    ],
)
def test_which_loaders_merely_shuffle(loader, shuffles):
    assert plain_shuffle(loader) is shuffles


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize("loader", [None, [DataLoader(OLD)] * 2, (), {"a": DataLoader(OLD)}, OLD, DataLoader(Stream())])
def test_what_cannot_be_poisoned(loader):
    with pytest.raises(UserError, match=r"MyData\.train_dataloader must"):
        check_train_loader(loader, "MyData")


def test_shuffle_depends_on_seed_and_epoch_alone():
    torch.manual_seed(0)
    first = list(EpochShuffle(50, seed=1))
    state = torch.get_rng_state()
    assert list(EpochShuffle(50, seed=1)) == first
    assert torch.equal(state, torch.get_rng_state())
    assert sorted(first) == list(range(50))
    assert list(EpochShuffle(50, seed=2)) != first
    later = EpochShuffle(50, seed=1)
    later.set_epoch(1)
    assert list(later) != first


def test_shuffle_reads_the_epoch_of_the_trainer():
    trainer = Trainer()
    sampler = EpochShuffle(50, seed=1, trainer=trainer)
    first = list(sampler)
    trainer.current_epoch = 3
    sampler.set_epoch(0)  # what Lightning says before a resumed epoch
    reference = EpochShuffle(50, seed=1)
    reference.set_epoch(3)
    assert list(sampler) == list(reference) != first
    assert list(pickle.loads(pickle.dumps(sampler))) == list(reference)


@pytest.mark.parametrize(("n", "ranks"), [(10, 2), (11, 2), (11, 3), (2, 5), (1, 4)])
def test_ranks_share_one_order(n, ranks):
    whole = list(EpochShuffle(n, seed=1))
    parts = [list(EpochShuffle(n, seed=1, num_replicas=ranks, rank=rank)) for rank in range(ranks)]
    size = -(-n // ranks)
    assert [len(part) for part in parts] == [size] * ranks
    together = [parts[position % ranks][position // ranks] for position in range(size * ranks)]
    assert together == (whole * ranks * ranks)[: size * ranks]
