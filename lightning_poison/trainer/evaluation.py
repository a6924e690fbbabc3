"""Evaluation data of a Trainer outside its own evaluation loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["evaluation_loader", "first_of", "on_device", "validation_batches"]


def first_of(collection: Any) -> Any:
    """The first of several loaders (or numbers of batches), or the only one; None if there is none.

    Example:
        >>> first_of({"a": 1, "b": 2}), first_of([3]), first_of([]), first_of(4)
        (1, 3, None, 4)
    """
    values = list(collection.values()) if isinstance(collection, Mapping) else collection
    if isinstance(values, (list, tuple)):
        return values[0] if values else None
    return values


def on_device(trainer: Any, pl_module: Any, batch: Any) -> Any:
    """A batch as a step of the module gets it: in the Trainer's precision, through the transfer hooks."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)  # as Lightning's own loops do
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def evaluation_loader(trainer: Any) -> Any:
    """The first loader of what is being evaluated, test or validation; None where there is none."""
    return first_of(trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders)


def validation_batches(trainer: Any, pl_module: Any) -> Iterator[Any]:
    """The batches of the first validation loader, once more, at the end of ``fit``; none where there is no loader."""
    loader, count = first_of(trainer.val_dataloaders), first_of(trainer.num_val_batches)
    if loader is None or not count:
        return
    trainer.validating = True
    try:
        for number, batch in enumerate(loader, start=1):
            yield on_device(trainer, pl_module, batch)
            if number >= count:
                break
    finally:
        trainer.training = True
