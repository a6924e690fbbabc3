"""A training loader over other data, in an order by seed and epoch: everything else about it stays."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)
from torch.utils.data.dataloader import _BaseDataLoaderIter

from lightning_poison._lightning import Callback
from lightning_poison.datamodules.poisoned_dataset import ReadingCount
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator

__all__ = [
    "EpochShuffle",
    "as_given",
    "check_train_loader",
    "in_order",
    "plain_shuffle",
    "watch_arrival",
    "with_dataset",
]

_WATCHED_BATCHES = 1000


# --- the loader -------------------------------------------------------------------------------------------------------


def check_train_loader(loader: Any, owner: str) -> DataLoader[Any]:
    """Return ``loader``, or the only entry of a list or tuple, if it is one ``DataLoader`` over a map-style data set.

    Args:
        loader: what a ``train_dataloader`` hook returned.
        owner: whose hook, for the message.

    Raises:
        UserError: it is something else: a list, a dict, a CombinedLoader, None, a stream.
    """
    remedy = "labels are flipped by index in one map-style data set; wrap each data set in PoisonedDataset yourself"
    if type(loader) in (list, tuple):
        if len(loader) != 1:
            kind = f"a {type(loader).__name__} of {len(loader)}"
            raise UserError(f"{owner}.train_dataloader must return one torch DataLoader, got {kind}; {remedy}")
        loader = loader[0]
    if not isinstance(loader, DataLoader):
        got = "None" if loader is None else type(loader).__name__
        raise UserError(f"{owner}.train_dataloader must return one torch DataLoader, got {got}; {remedy}")
    if isinstance(loader.dataset, IterableDataset):
        raise UserError(f"{owner}.train_dataloader must not stream, got {type(loader.dataset).__name__}; {remedy}")
    return loader


def as_given(given: Any, loader: DataLoader[Any]) -> Any:
    """``loader`` alone, or in a list or tuple of one, as :func:`check_train_loader` was ``given`` it.

    Lightning makes batches of one batch of the latter, which the training step expects then.
    """
    return type(given)([loader]) if type(given) in (list, tuple) else loader


def with_dataset(loader: DataLoader[Any], dataset: Any, sampler: Sampler[int] | None = None) -> DataLoader[Any]:
    """A new loader like ``loader`` over ``dataset``; ``loader`` is not changed.

    Batch size, workers, collation, generator, raw batch samplers and whatever a subclass added stay as they are. Where
    a subclass keeps the data set a second time, another loader over it, or an iterator that it made once and for all,
    those are made anew over ``dataset``. What else holds the old data (tensors of its own, a generator) cannot be known
    beforehand: :func:`watch_arrival` finds it out.

    Args:
        loader: the loader to follow.
        dataset: as long as the loader's own, unless ``sampler`` is given.
        sampler: replaces the sampler of automatic batching; None: the sampler stays.

    Example:
        >>> doubled = with_dataset(DataLoader([1, 2, 3], batch_size=3), [2, 4, 6])
        >>> next(iter(doubled))
        tensor([2, 4, 6])
    """
    return _rebuilt(loader, dataset, sampler, {})


def _rebuilt(
    loader: DataLoader[Any], dataset: Any, sampler: Sampler[int] | None, remade: dict[int, Any]
) -> DataLoader[Any]:
    """See :func:`with_dataset`; ``remade`` holds what was made anew, by the identity of the old."""
    # A loader forbids assignment after construction, and its subclass need not say how it is constructed; a copy has
    # everything, and the arguments that Lightning recorded to construct it anew are changed along with it.
    rebuilt = remade[id(loader)] = copy.copy(loader)
    changed: dict[str, Any] = {"dataset": dataset, "_iterator": None}
    if sampler is not None:
        changed["sampler"] = sampler
        if isinstance(loader.batch_sampler, BatchSampler):
            changed["batch_sampler"] = BatchSampler(
                sampler, loader.batch_sampler.batch_size, loader.batch_sampler.drop_last
            )
    rebuilt.__dict__.update(changed)
    _correct_recorded_arguments(rebuilt, loader.dataset, dataset)
    for name, value in list(rebuilt.__dict__.items()):
        if value is loader.dataset:
            rebuilt.__dict__[name] = dataset
        elif isinstance(value, DataLoader) and value.dataset is loader.dataset:
            known = remade.get(id(value))
            rebuilt.__dict__[name] = _rebuilt(value, dataset, sampler, remade) if known is None else known
    for name, value in list(rebuilt.__dict__.items()):  # last: an iterator takes what it needs from its loader at once
        if isinstance(value, _BaseDataLoaderIter):
            if id(value) not in remade:
                remade[id(value)] = rebuilt._get_iterator()
            rebuilt.__dict__[name] = remade[id(value)]
            if value is loader._iterator:  # the one of workers that stay
                rebuilt.__dict__["_iterator"] = remade[id(value)]
    return rebuilt


def _correct_recorded_arguments(loader: DataLoader[Any], old: Any, new: Any) -> None:
    attributes = loader.__dict__
    if "__pl_saved_args" not in attributes:
        return
    arguments = attributes["__pl_saved_args"]
    keywords = attributes["__pl_saved_kwargs"]
    if any(value is old for value in (*arguments, *keywords.values())):
        attributes["__pl_saved_args"] = tuple(new if value is old else value for value in arguments)
        attributes["__pl_saved_kwargs"] = {key: new if value is old else value for key, value in keywords.items()}
        attributes["__dataset"] = new
        return
    # The subclass makes its own data set from other arguments: without the record Lightning reads attributes instead.
    for name in [name for name in attributes if name.startswith("__pl_") or name == "__dataset"]:
        del attributes[name]


# --- the order --------------------------------------------------------------------------------------------------------


class EpochShuffle(DistributedSampler[Any]):
    """Shuffles by (seed, epoch), so that a resumed run sees the order of an uninterrupted one.

    The points of an epoch are dealt to the ranks in turn: all ranks together see the order that a single process
    would see, and where the number of points is no multiple of the number of ranks the first ones are repeated, as
    ``DistributedSampler`` does. Lightning leaves a ``DistributedSampler`` as it is. Points that are added to the data
    are shuffled in: the others keep the order that they have without them, so that a clean twin sees the same.

    Args:
        length: number of points, without added ones.
        seed: of the order.
        trainer: gives the epoch whenever iteration begins; None: the epoch comes from ``set_epoch``.
        num_replicas: number of ranks.
        rank: this one.
        added: number of points that stand behind the others.

    Example:
        >>> whole = list(EpochShuffle(5, seed=0))
        >>> halves = [list(EpochShuffle(5, seed=0, num_replicas=2, rank=rank)) for rank in range(2)]
        >>> halves[0][:3] == whole[::2] and halves[1][:2] == whole[1::2]
        True
    """

    def __init__(
        self, length: int, seed: int, trainer: Any = None, num_replicas: int = 1, rank: int = 0, added: int = 0
    ) -> None:
        self.added = added
        # The base only takes the length of what it calls a data set, and a range has one.
        super().__init__(range(length + added), num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]  # see above
        self.trainer = trainer

    def __iter__(self) -> Iterator[int]:
        """This rank's points in the order of the current epoch."""
        epoch = self.epoch if self.trainer is None else _epoch_to_come(self.trainer)
        count = len(self.dataset) - self.added  # type: ignore[arg-type]  # a range
        order = torch.randperm(count, generator=generator(self.seed, "shuffle", epoch))
        order = self._with_added(order, epoch)
        padded = torch.cat([order, order.repeat(-(-self.total_size // max(len(order), 1)))])[: self.total_size]
        return iter(padded[self.rank :: self.num_replicas].tolist())

    def _with_added(self, order: Tensor, epoch: int) -> Tensor:
        if not self.added:
            return order
        stream = generator(self.seed, "shuffle added", epoch)
        total = len(order) + self.added
        places = torch.zeros(total, dtype=torch.bool)
        places[torch.randperm(total, generator=stream)[: self.added]] = True
        mixed = torch.empty(total, dtype=torch.int64)
        mixed[~places] = order
        mixed[places] = len(order) + torch.randperm(self.added, generator=stream)
        return mixed

    def __getstate__(self) -> dict[str, Any]:
        """Leave the Trainer behind, with its epoch kept: the sampler may travel to another process."""
        state = self.__dict__.copy()
        if self.trainer is not None:
            state |= {"trainer": None, "epoch": _epoch_to_come(self.trainer)}
        return state


def _epoch_to_come(trainer: Any) -> int:
    """The epoch that is, or will be, trained with an iterator that is made now.

    A Trainer that goes on from a checkpoint makes its first iterator before it has counted the epoch whose end the
    checkpoint holds; workers fetch the order at once.
    """
    loop = getattr(trainer, "fit_loop", None)
    if loop is None or not (loop.epoch_loop.restarting or getattr(loop.epoch_loop, "is_resuming", False)):
        return int(trainer.current_epoch)
    counted = loop.epoch_progress.current
    behind_last_batch = loop.epoch_loop.batch_progress.is_last_batch and counted.started > counted.processed
    return int(counted.processed + behind_last_batch)


def plain_shuffle(loader: DataLoader[Any]) -> bool:
    """Whether the loader shuffles all points once per epoch, as ``shuffle=True`` does.

    Example:
        >>> plain_shuffle(DataLoader(range(3), shuffle=True)), plain_shuffle(DataLoader(range(3)))
        (True, False)
    """
    automatic, sampler = _sampling(loader)
    return (
        automatic
        and type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]  # a RandomSampler needed it too
    )


def in_order(loader: DataLoader[Any], dataset: Any) -> SequentialSampler:
    """The order of the points where ``dataset`` holds more of them than the loader's own, which is not shuffled.

    Args:
        loader: not shuffled.
        dataset: the points.

    Raises:
        UserError: the loader draws its points in a way that says nothing about more of them.
    """
    automatic, sampler = _sampling(loader)
    if not automatic or type(sampler) is not SequentialSampler:
        kind = type(sampler if automatic else loader.batch_sampler).__name__
        raise UserError(
            f"points can be added to a training loader with shuffle=True or False, got {kind}, which deals the clean "
            "points only; take it out, or use a poison that adds no point"
        )
    return SequentialSampler(dataset)


def _sampling(loader: DataLoader[Any]) -> tuple[bool, Any]:
    """Whether batches are made of single points as torch does it, and the sampler of these."""
    batches = loader.batch_sampler
    automatic = batches is None or type(batches) is BatchSampler
    return automatic, batches.sampler if isinstance(batches, BatchSampler) else loader.sampler


# --- whether flips arrive ---------------------------------------------------------------------------------------------


def watch_arrival(trainer: Any, loader: DataLoader[Any], reading: ReadingCount) -> None:
    """Let a run fail at its first batches if they do not come from the data set that ``reading`` counts for.

    A loader may have data or an iterator of its own, and would go on with clean labels while flips are announced.

    Args:
        trainer: of the run; outside ``fit`` nothing is watched.
        loader: over that data set.
        reading: of that data set.
    """
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, _Arrival)]
    if trainer.state.fn == "fit":
        trainer.callbacks.append(_Arrival(type(loader).__name__, reading))


class _Arrival(Callback):
    """Each batch takes at least one item; whoever else reads a few beforehand only delays the error by as many batches.

    It leaves after the first epoch: a loader may keep what it has read for the later ones.
    """

    def __init__(self, name: str, reading: ReadingCount) -> None:
        super().__init__()
        self.name, self.reading, self.batches = name, reading, 0

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        self.batches += 1
        if self.reading.total < self.batches:
            raise UserError(
                f"{self.name} must read the items of its data set, got {self.batches} training batches and "
                f"{self.reading.total} items read: it keeps data or an iterator of its own, so no flipped label would "
                "be trained on; use a plain DataLoader"
            )
        if self.batches >= _WATCHED_BATCHES:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        self._leave(trainer)

    def teardown(self, trainer: Any, *_: Any, **__: Any) -> None:
        self._leave(trainer)

    def on_exception(self, trainer: Any, *_: Any, **__: Any) -> None:
        self._leave(trainer)

    def _leave(self, trainer: Any) -> None:
        # A new list, as Lightning may be walking through the present one.
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self]
