"""Which points of a data set a loader yields, and which of them stands at which place of a rank's batches."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator, kept_random_state

__all__ = [
    "EvaluationOrder",
    "Yielded",
    "draw_positions",
    "evaluation_positions",
    "sample_positions",
    "trained_positions",
    "without_repeats",
    "yielded",
]

_ENDLESS = 4  # a sampler that yields so many times the points of its data set has no end
_SHARE_BITS = 40  # samples a rank, where ranks number their own


# --- what a sampler yields --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Yielded:
    """The points that a loader yields in one epoch, on all ranks that its sampler deals them to.

    Attributes:
        support: shape (m,), int64, rising: every position that some epoch may yield; None where nobody can know.
        order: shape (k,), int64: the positions in the order in which all ranks together read them in the present
            epoch; None where that is drawn when it begins.
        steady: whether every epoch has that order.
        distinct: whether no point comes twice in an epoch, but for the repeats that even out ranks.
        weighted: whether points were given the weight 0, which may have come from their labels.
        sizes: of the batches, where the loader deals batches of its own; None: of one size.
        why: what keeps the support from being known.
    """

    support: Tensor | None
    order: Tensor | None = None
    steady: bool = False
    distinct: bool = False
    weighted: bool = False
    sizes: tuple[int, ...] | None = None
    why: str = ""


def yielded(loader: Any) -> Yielded:
    """What one epoch of a loader consists of.

    Known samplers are read off; any other one is asked for two epochs, on a copy, so that neither its own random state
    nor the global one moves.

    Args:
        loader: a torch ``DataLoader``; of anything else nothing is known.

    Example:
        >>> from torch.utils.data import DataLoader, SubsetRandomSampler
        >>> found = yielded(DataLoader(range(9), sampler=SubsetRandomSampler([5, 2, 7])))
        >>> found.support, found.order, found.distinct
        (tensor([2, 5, 7]), None, True)
    """
    if not isinstance(loader, DataLoader):
        return Yielded(None, why=f"{type(loader).__name__} is no DataLoader")
    if isinstance(loader.dataset, IterableDataset) or not isinstance(loader.dataset, Sized):
        return Yielded(None, why=f"{type(loader.dataset).__name__} has no indices")
    return _of_sampler(_index_sampler(loader), len(loader.dataset))


def trained_positions(loader: Any, max_batches: float | None = None, ranks: int = 1) -> Tensor:
    """The points that a training loader may yield: shape (m,), int64, rising.

    Args:
        loader: the training loader, before or after it was dealt to ranks.
        max_batches: the run trains on so many batches an epoch at most, on each rank; None: on all.
        ranks: to which Lightning will deal the points of a loader that knows of no ranks yet.

    Raises:
        UserError: nobody can know which points these are.

    Example:
        >>> trained_positions(DataLoader(range(9), batch_size=2), max_batches=2)
        tensor([0, 1, 2, 3])
    """
    found = yielded(loader)
    if found.support is None:
        raise UserError(
            f"cannot tell which points are trained on: {found.why}; let the training loader's sampler have a length "
            "and yield the same points in each epoch, or give it a Subset of the data and shuffle=True"
        )
    if found.order is None or not found.steady or max_batches is None:
        return found.support
    sampler = _dealing_sampler(loader)
    dealt_to = sampler.num_replicas if isinstance(sampler, DistributedSampler) else ranks
    return without_repeats(_begun(found.order, found, loader, max_batches, dealt_to))


def without_repeats(positions: Tensor) -> Tensor:
    """Each value once, rising: shape (m,) of (n,)."""
    found: Tensor = torch.unique(positions)
    return found


def _index_sampler(loader: DataLoader[Any]) -> Any:
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def _batch_size(loader: DataLoader[Any]) -> int:
    return int(getattr(_index_sampler(loader), "batch_size", None) or 1)


def _dealing_sampler(loader: Any) -> Any:
    """The sampler that may deal points to ranks."""
    return getattr(getattr(loader, "batch_sampler", None), "sampler", None) or getattr(loader, "sampler", None)


def _begun(order: Tensor, found: Yielded, loader: Any, max_batches: float, ranks: int) -> Tensor:
    """As much of an order as the first batches of each rank hold."""
    if found.sizes is not None:
        return order[: sum(found.sizes[: int(min(max_batches, len(found.sizes)))])]
    return order[: int(min(max_batches * _batch_size(loader) * ranks, len(order)))]


def _of_sampler(sampler: Any, length: int) -> Yielded:
    """What ``sampler`` yields of ``length`` points."""
    kind = type(sampler)
    if kind is BatchSampler:
        return _in_batches(_of_sampler(sampler.sampler, length), sampler)
    if kind is SequentialSampler:
        return _fixed(torch.arange(_size_of(sampler.data_source, length)))
    if kind is RandomSampler:
        count = _size_of(sampler.data_source, length)
        distinct = not sampler.replacement and sampler.num_samples <= count
        return Yielded(torch.arange(count), distinct=distinct)
    if kind is SubsetRandomSampler:
        index = torch.as_tensor(list(sampler.indices), dtype=torch.int64)
        return Yielded(without_repeats(index), distinct=len(without_repeats(index)) == len(index))
    if kind is WeightedRandomSampler:
        weights = torch.as_tensor(sampler.weights)
        positive = (weights > 0).nonzero()[:, 0]
        return Yielded(positive, distinct=not sampler.replacement, weighted=len(positive) < len(weights))
    if isinstance(sampler, DistributedSampler):
        return _dealt(sampler, length)
    return _asked(sampler, length)


def _size_of(source: Any, length: int) -> int:
    return len(source) if isinstance(source, Sized) else length


def _fixed(order: Tensor) -> Yielded:
    support = without_repeats(order)
    return Yielded(support, order, steady=True, distinct=len(support) == len(order))


def _in_batches(found: Yielded, batches: BatchSampler) -> Yielded:
    """Less the last batch of each rank where it is dropped."""
    if found.order is None or not batches.drop_last:
        return found
    sampler, size = batches.sampler, batches.batch_size
    ranks = sampler.num_replicas if isinstance(sampler, DistributedSampler) else 1
    a_rank = sampler.num_samples if isinstance(sampler, DistributedSampler) else len(found.order)
    kept = found.order[: a_rank // size * size * ranks]
    return replace(found, order=kept, support=without_repeats(kept) if found.steady else found.support)


def _dealt(sampler: DistributedSampler[Any], length: int) -> Yielded:
    """All points that are dealt to the ranks, without the repeats that even them out."""
    inner = getattr(sampler.dataset, "_sampler", None)  # Lightning deals another sampler's points
    own_order = type(sampler).__iter__ is not DistributedSampler.__iter__
    if inner is None and own_order and not _deals_as_torch(sampler):
        return _dealt_by_others(sampler, length)
    count = _size_of(sampler.dataset, length)
    found = _fixed(torch.arange(count)) if inner is None else _of_sampler(inner, length)
    if not sampler.shuffle:
        if found.order is None or not sampler.drop_last:
            return found
        kept = found.order[: sampler.total_size]
        return replace(found, order=kept, support=without_repeats(kept))
    if found.order is None or type(sampler).__name__.startswith("Unrepeated"):
        return replace(found, order=None, steady=False)
    stream = torch.Generator().manual_seed(sampler.seed + sampler.epoch)  # as torch's own sampler does
    order = found.order[torch.randperm(len(found.order), generator=stream)]
    return replace(found, order=None if _deals_as_torch(sampler) else order, steady=False)


def _deals_as_torch(sampler: Any) -> bool:
    """Whether a sampler of another class deals all points, in an order of its own, as torch's does."""
    return hasattr(sampler, "added") or type(sampler).__name__.startswith("Unrepeated")


def _dealt_by_others(sampler: DistributedSampler[Any], length: int) -> Yielded:
    """What somebody's own distributed sampler yields: every rank's share is asked for."""
    shares = []
    for rank in range(sampler.num_replicas):
        here = copy.copy(sampler)
        here.rank = rank
        shares.append(_asked(here, length))
    unknown = next((share for share in shares if share.support is None), None)
    if unknown is not None:
        return unknown
    support = without_repeats(torch.cat([share.support for share in shares if share.support is not None]))
    orders = [share.order for share in shares if share.order is not None]
    if len(orders) < len(shares) or len({len(order) for order in orders}) > 1:
        return Yielded(support)
    return Yielded(support, torch.stack(orders, dim=1).flatten(), steady=True, distinct=True)


def _asked(sampler: Any, length: int) -> Yielded:
    """What a sampler of somebody's own yields, found out by asking for two epochs."""
    name = type(sampler).__name__
    try:
        asked = _copy(sampler)
        with kept_random_state(0):
            first = _epoch(asked, length)
        with kept_random_state(1):
            second = _epoch(asked, length)
    except Exception as error:  # noqa: BLE001  # somebody's sampler may fail in any way when it is copied or asked
        return Yielded(None, why=f"{name} cannot be asked beforehand ({error})")
    if first is None or second is None:
        return _endless(sampler, length)
    (one, sizes), (other, other_sizes) = first, second
    if not without_repeats(one).equal(without_repeats(other)):
        return Yielded(None, why=f"{name} yields other points in each epoch")
    same = one.equal(other) and sizes == other_sizes
    return replace(_fixed(one), order=one if same else None, steady=same, sizes=sizes)


def _endless(sampler: Any, length: int) -> Yielded:
    """Of a sampler without an end: what the one inside yields, if it does nothing but repeat that."""
    unknown = Yielded(None, why=f"{type(sampler).__name__} has no end")
    inner = getattr(sampler, "sampler", None) or getattr(sampler, "batch_sampler", None)
    found = unknown if inner is None else _of_sampler(inner, length)
    if found.support is None:
        return unknown
    with kept_random_state(0):
        entries = (position for entry in _copy(sampler) for position in _positions_of(entry))
        seen = torch.tensor(list(itertools.islice(entries, 2 * len(found.support))), dtype=torch.int64)
    return replace(found, order=None, steady=False) if torch.isin(seen, found.support).all() else unknown


def _epoch(sampler: Any, length: int) -> tuple[Tensor, tuple[int, ...] | None] | None:
    """Positions and batch sizes of an epoch, None for the sizes where it yields single points; None without an end."""
    limit = _ENDLESS * max(length, 1)
    positions: list[int] = []
    sizes: list[int] = []
    for entry in sampler:
        batch = _positions_of(entry)
        positions += batch
        if not isinstance(entry, (int, np.integer)):
            sizes.append(len(batch))
        if len(positions) > limit:
            return None
    return torch.tensor(positions, dtype=torch.int64), tuple(sizes) or None


def _positions_of(entry: Any) -> list[int]:
    if isinstance(entry, Iterable):
        return [int(position) for position in np.asarray(entry).flatten()]
    return [int(entry)]


def _copy(sampler: Any) -> Any:
    """A copy that can be asked in the sampler's place; the data sets that it holds are not copied along with it."""
    kept: dict[int, Any] = {}
    waiting, seen = [sampler], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or not hasattr(one, "__dict__"):
            continue
        seen.add(id(one))
        for name, value in vars(one).items():
            if name in ("sampler", "batch_sampler", "_sampler"):
                waiting.append(value)
            elif hasattr(value, "__getitem__") and hasattr(value, "__len__") and hasattr(value, "__dict__"):
                kept[id(value)] = value
    return copy.deepcopy(sampler, kept)


# --- which sample stands where ----------------------------------------------------------------------------------------


def sample_positions(sampler: Any, length: int, first: int, size: int) -> Tensor:
    """Places, in the order a single process would see, of a run of samples on this rank.

    ``DistributedSampler`` deals place p to rank p mod R and repeats the first places until every rank has the same
    number; a sample dealt at p >= ``length`` is such a repeat and must not be counted again. Any other sampler means
    that this rank sees everything.

    Args:
        sampler: the loader's sampler.
        length: number of samples in the data set.
        first: how many samples this rank has seen before the run.
        size: length of the run.

    Returns:
        shape (size,), int64; -1 for a repeat.

    Example:
        >>> sampler = DistributedSampler(range(3), num_replicas=2, rank=1, shuffle=False)
        >>> sample_positions(sampler, 3, first=0, size=2)
        tensor([ 1, -1])
    """
    places = torch.arange(first, first + size)
    if isinstance(sampler, DistributedSampler):
        places = sampler.rank + places * sampler.num_replicas
        places[places >= length] = -1
    return places


def evaluation_positions(
    trainer: Any, batch_idx: int, dataloader_idx: int, size: int, first: int | None = None
) -> Tensor:
    """:func:`sample_positions` of an evaluation batch of a Lightning Trainer.

    Args:
        trainer: either Lightning's Trainer while it validates or tests.
        batch_idx: as given to the hook.
        dataloader_idx: as given to the hook.
        size: number of samples in the batch.
        first: how many samples this rank has seen before the batch; None: as many as batches of one size hold.

    Returns:
        shape (size,), int64; -1 for a repeat.
    """
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    loader = loaders[dataloader_idx] if isinstance(loaders, (list, tuple)) else loaders
    batch_sampler = getattr(loader, "batch_sampler", None)
    batch_size = getattr(batch_sampler, "batch_size", None) or getattr(loader, "batch_size", None) or size
    sampler = _dealing_sampler(loader)
    # A sampler of part of the data set stands inside the distributed one, as its data set.
    dataset = sampler.dataset if isinstance(sampler, DistributedSampler) else getattr(loader, "dataset", None)
    length = len(dataset) if isinstance(dataset, Sized) else 0
    return sample_positions(sampler, length, batch_idx * batch_size if first is None else first, size)


class EvaluationOrder:
    """Tells which points an evaluation loader's samples are, batch by batch, each of them once.

    A sample is known by its position in the data set wherever that follows from the loader. Where it does not (a
    shuffled loader, a stream), samples are numbered as they are read, so that they can be counted and drawn, and no
    position is claimed.

    Args:
        loader: of the evaluation.
        rank: this process.
        ranks: how many there are.
        max_batches: evaluated on each rank; None: all.

    Attributes:
        known: whether samples are known by their position in the data set.
        own: whether each rank reads a loader of its own, of which nobody says how they go together.
        total: how many samples are read, by this rank if ``own``, else by all; None where nobody knows.
        support: shape (m,), int64: positions in the data set that may be read; None where nobody knows.

    Raises:
        UserError: points may come twice, or nobody can tell which rank reads which point.

    Example:
        >>> order = EvaluationOrder(DataLoader(range(5), sampler=[4, 2, 0], batch_size=2))
        >>> order.next(2), order.next(1)
        (tensor([4, 2]), tensor([0]))
    """

    def __init__(self, loader: Any, rank: int = 0, ranks: int = 1, max_batches: float | None = None) -> None:
        sampler = _dealing_sampler(loader)
        dealt = isinstance(sampler, DistributedSampler)
        found = yielded(loader)
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            _check_each_once(found, sampler)
        self.support = found.support
        self.own = ranks > 1 and not dealt
        self._rank: int = sampler.rank if dealt else 0
        self._ranks: int = sampler.num_replicas if dealt else 1
        self._share, self._shares = (rank, ranks) if self.own else (0, 1)
        order = found.order
        if order is not None and max_batches is not None:
            order = _begun(order, found, loader, max_batches, self._ranks)
        self._order = None if order is None else torch.where(_repeated(order), -1, order)
        self.known = order is not None and not self.own
        self.total = _number(found, loader, max_batches, self._ranks) if order is None else len(without_repeats(order))
        self._seen = 0

    def next(self, size: int) -> Tensor:
        """Which samples the next batch of this rank holds.

        Args:
            size: of the batch.

        Returns:
            shape (size,), int64: positions in the data set where :attr:`known`, else running numbers over all ranks; -1
            for a sample that must not be counted (again).
        """
        places = self._rank + torch.arange(self._seen, self._seen + size) * self._ranks
        self._seen += size
        if self._order is None:
            return places + self._offset
        found = torch.full_like(places, -1)
        inside = places < len(self._order)
        found[inside] = self._order[places[inside]]
        return torch.where(found < 0, found, found + self._offset)

    def start(self) -> None:
        """Begin again with the first batch."""
        self._seen = 0

    @property
    def samples(self) -> Tensor:
        """What :meth:`next` tells of all samples, on all ranks (on this one if :attr:`own`), shape (m,), int64, rising.

        Raises:
            UserError: their number is unknown.
        """
        if self.total is None:
            raise UserError("the number of evaluated samples is unknown; evaluate on a map-style data set")
        found = torch.arange(self.total) if self._order is None else without_repeats(self._order[self._order >= 0])
        return found + self._offset

    def draw(self, count: int | None, labels: Callable[[], Tensor | None] = lambda: None) -> Tensor | None:
        """``count`` of the samples, class by class where classes are known, the same on every rank and in every run.

        Args:
            count: how many; None: all.
            labels: gives the label of every point of the data set, shape (n,), if it is known at little cost.

        Returns:
            shape (at most count,), int64, rising; None for all of them. Of a stream the first ones.
        """
        if count is None:
            return None
        if self.own:  # each rank draws its share
            count = count // self._shares + (self._share < count % self._shares)
        if self.total is None:
            return torch.arange(count) + self._offset
        if count >= self.total:
            return None
        samples = self.samples
        known = labels() if self._order is not None else None
        return samples[draw_positions(len(samples), count, None if known is None else known[samples - self._offset])]

    @property
    def _offset(self) -> int:
        """Keeps the samples of ranks apart that number their own."""
        return self._share << _SHARE_BITS


def _check_each_once(found: Yielded, sampler: Any) -> None:
    name = type(getattr(getattr(sampler, "dataset", None), "_sampler", sampler)).__name__
    remedy = "evaluate on a Subset of the data, in its order (shuffle=False)"
    if found.support is None:
        raise UserError(f"cannot tell which points are evaluated: {found.why}; {remedy}")
    if not found.distinct and found.order is None:
        raise UserError(
            f"points must be evaluated once each, got an evaluation loader with {name}, which may yield one twice; "
            f"{remedy}"
        )
    if isinstance(sampler, DistributedSampler) and found.order is None and sampler.num_replicas > 1:
        raise UserError(
            f"cannot tell which rank evaluates which point, as {name} draws its order anew on each rank; {remedy}"
        )


def _number(found: Yielded, loader: Any, max_batches: float | None, ranks: int) -> int | None:
    """How many samples are read of points in an unknown order; None where nobody knows."""
    if found.support is None:
        return None
    batches = loader.batch_sampler
    inner = loader.sampler if batches is None else getattr(batches, "sampler", batches)
    count = len(found.support)
    if type(inner) in (RandomSampler, WeightedRandomSampler):
        count = min(count, inner.num_samples)
    size = _batch_size(loader)
    if getattr(batches, "drop_last", False):
        count = count // size * size
    return count if max_batches is None else int(min(count, max_batches * size * ranks))


def _repeated(order: Tensor) -> Tensor:
    """Where a position of ``order`` stood before: shape (k,), bool."""
    rank = order.argsort(stable=True)
    again = torch.zeros(len(order), dtype=torch.bool)
    again[rank[1:]] = order[rank[1:]] == order[rank[:-1]]
    return again


def draw_positions(total: int, count: int, labels: Tensor | None = None, key: str = "max_samples") -> Tensor:
    """``count`` of ``total`` samples, always the same ones, in the shares that their classes have.

    The samples of each class are put into random order, the classes one after the other, and every (total / count)-th
    is taken: of a class with a share s of the samples, count s are drawn, rounded down or up.

    Args:
        total: how many there are.
        count: how many are drawn.
        labels: shape (total,), int64; None: they are drawn without regard to classes.
        key: from which the draw follows.

    Returns:
        shape (min(count, total),), int64, rising.

    Example:
        >>> drawn = draw_positions(100, 10, torch.arange(100) // 50)
        >>> len(drawn), int((drawn < 50).sum())
        (10, 5)
    """
    if count >= total:
        return torch.arange(total)
    shuffled = torch.randperm(total, generator=generator(0, key))
    if labels is not None:
        shuffled = shuffled[labels[shuffled].argsort(stable=True)]
        shuffled = shuffled[(torch.arange(count) * total + total // 2) // count]
    return shuffled[:count].sort().values
