"""A training loader over other data: everything else about it stays."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from lightning_poison._lightning import Callback
from lightning_poison.datamodules.poisoned_dataset import ReadingCount
from lightning_poison.errors import UserError

__all__ = ["as_given", "check_train_loader", "in_order", "plain_shuffle", "watch_arrival", "with_dataset"]

_WATCHED_BATCHES = 1000


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


def plain_shuffle(loader: DataLoader[Any]) -> bool:
    """Whether the loader shuffles all points once per epoch, as ``shuffle=True`` does.

    Example:
        >>> plain_shuffle(DataLoader(range(3), shuffle=True)), plain_shuffle(DataLoader(range(3)))
        (True, False)
    """
    automatic = loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler
    sampler = loader.batch_sampler.sampler if isinstance(loader.batch_sampler, BatchSampler) else loader.sampler
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
    automatic = loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler
    sampler = loader.batch_sampler.sampler if isinstance(loader.batch_sampler, BatchSampler) else loader.sampler
    if not automatic or type(sampler) is not SequentialSampler:
        kind = type(sampler if automatic else loader.batch_sampler).__name__
        raise UserError(
            f"points can be added to a training loader with shuffle=True or False, got {kind}, which deals the clean "
            "points only; take it out, or use a poison that adds no point"
        )
    return SequentialSampler(dataset)


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
