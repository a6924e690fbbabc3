"""Evaluation data of a Trainer outside its own evaluation loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning_poison._lightning import lightning_packages

__all__ = ["evaluation_loader", "first_of", "on_device", "validation_batches", "without_logging"]


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


@contextmanager
def without_logging(pl_module: Any) -> Iterator[None]:
    """Inside, what the module's own code logs is dropped.

    A forward that logs would add our passes to the numbers that its steps log under the same key, or fail in a hook
    where logging is closed.

    Args:
        pl_module: a LightningModule, of either package, with all that are inside it.
    """
    kinds = tuple(package.LightningModule for package in lightning_packages())
    own = [vars(part) for part in pl_module.modules() if isinstance(part, kinds)]
    before = [attributes.get("log") for attributes in own]
    try:
        for attributes in own:
            attributes["log"] = _dropped
        yield
    finally:
        for attributes, given in zip(own, before, strict=True):
            del attributes["log"]
            if given is not None:
                attributes["log"] = given


def _dropped(*_: Any, **__: Any) -> None:
    pass
