"""What is said of a loader's points is what it yields: compared with reading it, alone and dealt to ranks."""

from __future__ import annotations

import itertools

import pytest
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_poison.datamodules.train_loader import EpochShuffle
from lightning_poison.errors import UserError
from lightning_poison.trainer.positions import EvaluationOrder, draw_positions, trained_positions, yielded

COUNT = 11
SUBSET = [7, 2, 9, 4, 0]


class Positions(Dataset[int]):
    """Item i is i."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index):
        assert all(0 <= position < COUNT for position in torch.as_tensor(index).flatten())
        return torch.as_tensor(index)


class InOrder(Sampler[int]):
    def __iter__(self):
        return iter(SUBSET)

    def __len__(self) -> int:
        return len(SUBSET)


class Shuffled(InOrder):
    """With a generator of its own that nobody may move."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)

    def __iter__(self):
        return iter([SUBSET[place] for place in torch.randperm(len(SUBSET), generator=self.generator)])


class AnyHalf(Sampler[int]):
    def __iter__(self):
        return iter(torch.randperm(COUNT)[:5].tolist())

    def __len__(self) -> int:
        return 5


class Endless(Sampler[int]):
    def __iter__(self):
        return iter(lambda: int(torch.randint(COUNT, ())), None)


class Repeating:
    """As fast loaders have it that never end their workers."""

    def __init__(self, sampler) -> None:
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from self.sampler


class Uneven:
    def __iter__(self):
        return iter([[3, 1], [8], [0, 2, 5]])

    def __len__(self) -> int:
        return 3


class Strided(DistributedSampler):
    """Deals only the even points."""

    def __iter__(self):
        return iter([0, 2, 4, 6, 8, 10][self.rank :: self.num_replicas])


DATA = Positions()
WEIGHTS = [1.0, 0.0, 2.0, 0.0, *[1.0] * 7]
STEADY = {
    "plain": lambda: DataLoader(DATA, 4),
    "drop_last": lambda: DataLoader(DATA, 4, drop_last=True),
    "one by one": lambda: DataLoader(DATA, None),
    "list": lambda: DataLoader(DATA, 2, sampler=SUBSET),
    "own": lambda: DataLoader(DATA, 2, sampler=InOrder()),
    "own batches": lambda: DataLoader(DATA, batch_sampler=Uneven()),
    "batches as a sampler": lambda: DataLoader(DATA, None, sampler=BatchSampler(InOrder(), 2, drop_last=True)),
    "distributed": lambda: DataLoader(DATA, 2, sampler=DistributedSampler(DATA, 1, 0, shuffle=False)),
}
ANEW = {
    "shuffle": lambda: DataLoader(DATA, 4, shuffle=True),
    "subset": lambda: DataLoader(DATA, 4, sampler=SubsetRandomSampler(SUBSET)),
    "own": lambda: DataLoader(DATA, 2, sampler=Shuffled()),
    "replacement": lambda: DataLoader(DATA, 2, sampler=RandomSampler(DATA, replacement=True)),
    "some": lambda: DataLoader(DATA, 2, sampler=RandomSampler(DATA, num_samples=4)),
    "weighted": lambda: DataLoader(DATA, 2, sampler=WeightedRandomSampler(WEIGHTS, 20)),
    "weighted once": lambda: DataLoader(DATA, 2, sampler=WeightedRandomSampler(WEIGHTS, 9, replacement=False)),
    "epoch shuffle": lambda: DataLoader(DATA, 2, sampler=EpochShuffle(COUNT, seed=0)),
}


def read(loader, batches=None) -> list[int]:
    entries = itertools.islice(loader, batches)
    return [int(position) for entry in entries for position in entry.flatten()]


@pytest.mark.parametrize("make", STEADY.values(), ids=STEADY.keys())
@pytest.mark.parametrize("batches", [None, 1, 2])
def test_points_in_a_fixed_order_are_known(make, batches) -> None:
    loader = make()
    expected = read(loader, batches)
    assert trained_positions(loader, batches).tolist() == sorted(expected)
    order = EvaluationOrder(loader, max_batches=batches)
    sizes = [entry.numel() for entry in itertools.islice(loader, batches)]
    assert [position for size in sizes for position in order.next(size).tolist()] == expected
    assert order.known
    assert order.total == len(expected)


@pytest.mark.parametrize("make", ANEW.values(), ids=ANEW.keys())
def test_points_in_an_order_that_is_drawn_are_known_as_a_set(make) -> None:
    loader = make()
    seen = set(itertools.chain.from_iterable(read(loader) for _ in range(60)))
    assert trained_positions(loader).tolist() == sorted(seen)
    distinct = all(len(set(found)) == len(found) for found in (read(loader) for _ in range(20)))
    assert yielded(loader).distinct == distinct


@pytest.mark.parametrize("name", ["shuffle", "subset", "own", "some"])
def test_samples_in_an_order_that_is_drawn_are_counted_but_not_placed(name) -> None:
    loader = ANEW[name]()
    order = EvaluationOrder(loader)
    assert not order.known
    assert order.total == len(read(loader))
    assert order.next(2).tolist() + order.next(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["replacement", "weighted"])
def test_evaluation_that_repeats_points_is_refused(name) -> None:
    with pytest.raises(UserError, match=r"points must be evaluated once each, got .*RandomSampler"):
        EvaluationOrder(ANEW[name]())


@pytest.mark.parametrize(("sampler", "why"), [(AnyHalf(), "other points in each epoch"), (Endless(), "has no end")])
def test_a_set_that_nobody_can_know_is_refused(sampler, why) -> None:
    loader = DataLoader(DATA, 2, sampler=sampler)
    with pytest.raises(UserError, match=rf"cannot tell which points are trained on: .* {why}"):
        trained_positions(loader)
    with pytest.raises(UserError, match=rf"cannot tell which points are evaluated: .* {why}"):
        EvaluationOrder(loader)


def test_a_sampler_that_repeats_another_without_end_yields_its_points() -> None:
    loader = DataLoader(DATA, batch_sampler=Repeating(BatchSampler(SubsetRandomSampler(SUBSET), 2, False)))
    assert trained_positions(loader).tolist() == sorted(SUBSET)


def test_zero_weights_are_noticed() -> None:
    assert yielded(ANEW["weighted"]()).weighted
    assert not yielded(DataLoader(DATA, sampler=WeightedRandomSampler([1.0] * COUNT, 5))).weighted


def test_asking_moves_no_random_state() -> None:
    sampler, before = Shuffled(), torch.get_rng_state()
    state = sampler.generator.get_state()
    yielded(DataLoader(DATA, 2, sampler=sampler))
    yielded(DataLoader(DATA, 2, sampler=AnyHalf()))
    assert sampler.generator.get_state().equal(state)
    assert torch.get_rng_state().equal(before)


def test_asking_copies_no_data_set() -> None:
    class Holding(InOrder):
        def __init__(self) -> None:
            self.data_source = Uncopied()

    class Uncopied(Positions):
        def __deepcopy__(self, memo):
            raise AssertionError

    assert trained_positions(DataLoader(DATA, 2, sampler=Holding())).tolist() == sorted(SUBSET)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("batches", [None, 1, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    "deal",
    [
        lambda ranks, rank: DistributedSampler(DATA, ranks, rank, shuffle=False),
        lambda ranks, rank: DistributedSampler(DATA, ranks, rank, shuffle=True, seed=5),
        lambda ranks, rank: DistributedSampler(DATA, ranks, rank, shuffle=False, drop_last=True),
        lambda ranks, rank: DistributedSamplerWrapper(InOrder(), num_replicas=ranks, rank=rank, shuffle=False),
        lambda ranks, rank: DistributedSamplerWrapper(InOrder(), num_replicas=ranks, rank=rank, shuffle=True),
        lambda ranks, rank: Strided(DATA, ranks, rank),
    ],
)
def test_dealt_points_are_told_apart_from_repeats(deal, ranks, batches, drop_last) -> None:
    loaders = [DataLoader(DATA, 2, sampler=deal(ranks, rank), drop_last=drop_last) for rank in range(ranks)]
    for loader in loaders:
        loader.sampler.set_epoch(4)
    counted = []
    for rank, loader in enumerate(loaders):
        order = EvaluationOrder(loader, rank, ranks, batches)
        assert order.known
        for entry in itertools.islice(loader, batches):
            told = order.next(len(entry))
            assert told[told >= 0].equal(entry[told >= 0])
            counted += told[told >= 0].tolist()
    all_read = [position for loader in loaders for position in read(loader, batches)]
    assert sorted(counted) == sorted(set(all_read))
    if batches is None and not drop_last:
        assert trained_positions(loaders[0]).tolist() == sorted(set(all_read))


def test_an_order_that_each_rank_draws_is_refused() -> None:
    sampler = DistributedSamplerWrapper(SubsetRandomSampler(SUBSET), num_replicas=2, rank=0, shuffle=False)
    with pytest.raises(UserError, match="which rank evaluates which point, as SubsetRandomSampler draws its order"):
        EvaluationOrder(DataLoader(DATA, 2, sampler=sampler), 0, 2)


def test_ranks_with_loaders_of_their_own_number_their_samples_apart() -> None:
    orders = [EvaluationOrder(DataLoader(DATA, 4), rank, 2) for rank in range(2)]
    first, second = (order.next(4) for order in orders)
    assert all(order.own and not order.known for order in orders)
    assert not set(first.tolist()) & set(second.tolist())
    drawn = [order.draw(5) for order in orders]
    assert [len(samples) for samples in drawn] == [3, 2]
    assert all(torch.isin(samples, order.samples).all() for samples, order in zip(drawn, orders, strict=True))


def test_a_stream_is_numbered() -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(5))

    order = EvaluationOrder(DataLoader(Stream(), 2))
    assert (order.known, order.total, order.next(2).tolist(), order.draw(3).tolist()) == (
        False,
        None,
        [0, 1],
        [0, 1, 2],
    )
    with pytest.raises(UserError, match="Stream has no indices"):
        trained_positions(DataLoader(Stream(), 2))


def test_added_points_are_in_the_order_of_a_longer_data_set() -> None:
    class Longer(Positions):
        def __len__(self) -> int:
            return COUNT + 2

    longer = Longer()
    assert trained_positions(DataLoader(longer, sampler=SequentialSampler(longer))).tolist() == list(range(COUNT + 2))


@pytest.mark.parametrize("count", [1, 7, 10, 50, 99])
def test_draws_keep_the_shares_of_the_classes(count) -> None:
    labels = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    drawn = draw_positions(100, count, labels)
    assert len(drawn.unique()) == count
    assert drawn.equal(draw_positions(100, count, labels))
    for label, share in ((0, 0.7), (1, 0.25), (2, 0.05)):
        assert abs(int((labels[drawn] == label).sum()) - share * count) < 1 + 1e-9


def test_draws_are_from_everywhere() -> None:
    means = [draw_positions(1000, 100, key=str(key)).double().mean().item() for key in range(20)]
    assert abs(sum(means) / 20 - 499.5) < 4 * 28.9 / 20**0.5
    assert draw_positions(3, 5).tolist() == [0, 1, 2]
