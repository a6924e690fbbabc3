"""A training loader over other data: everything else about it stays."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, SequentialSampler

from lightning_poison.errors import UserError

__all__ = ["check_train_loader", "in_order", "plain_shuffle", "with_dataset"]


def check_train_loader(loader: Any, owner: str) -> DataLoader[Any]:
    """Return ``loader`` if it is one ``DataLoader`` over a map-style data set.

    Args:
        loader: what a ``train_dataloader`` hook returned.
        owner: whose hook, for the message.

    Raises:
        UserError: it is something else: a list, a dict, a CombinedLoader, None, a stream.
    """
    remedy = "labels are flipped by index in one map-style data set; wrap each data set in PoisonedDataset yourself"
    if not isinstance(loader, DataLoader):
        got = "None" if loader is None else type(loader).__name__
        raise UserError(f"{owner}.train_dataloader must return one torch DataLoader, got {got}; {remedy}")
    if isinstance(loader.dataset, IterableDataset):
        raise UserError(f"{owner}.train_dataloader must not stream, got {type(loader.dataset).__name__}; {remedy}")
    return loader


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

    Batch size, workers, collation, generator, raw batch samplers and whatever a subclass added stay as they are.

    Args:
        loader: the loader to follow.
        dataset: as long as the loader's own, unless ``sampler`` is given.
        sampler: replaces the sampler of automatic batching; None: the sampler stays.

    Example:
        >>> doubled = with_dataset(DataLoader([1, 2, 3], batch_size=3), [2, 4, 6])
        >>> next(iter(doubled))
        tensor([2, 4, 6])
    """
    # A loader forbids assignment after construction, and its subclass need not say how it is constructed; a copy has
    # everything, and the arguments that Lightning recorded to construct it anew are changed along with it.
    rebuilt = copy.copy(loader)
    changed: dict[str, Any] = {"dataset": dataset, "_iterator": None}
    if sampler is not None:
        changed["sampler"] = sampler
        if isinstance(loader.batch_sampler, BatchSampler):
            changed["batch_sampler"] = BatchSampler(
                sampler, loader.batch_sampler.batch_size, loader.batch_sampler.drop_last
            )
    rebuilt.__dict__.update(changed)
    _correct_recorded_arguments(rebuilt, loader.dataset, dataset)
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
