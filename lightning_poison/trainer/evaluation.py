"""Evaluation data of a Trainer: its loader, its samples, and reading them outside Lightning's own loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, default_convert

from lightning_poison._lightning import lightning_packages
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.trainer.positions import EvaluationOrder, without_repeats
from lightning_poison.trainer.ranks import from_all_ranks

__all__ = [
    "EvaluatedSamples",
    "collation",
    "evaluation_loader",
    "first_items",
    "first_of",
    "max_evaluation_batches",
    "on_device",
    "validation_batches",
    "without_logging",
]


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


def max_evaluation_batches(trainer: Any) -> float | None:
    """How many batches of that loader are evaluated on each rank; None where nobody knows yet."""
    count = first_of(trainer.num_test_batches if trainer.testing else trainer.num_val_batches)
    return None if count is None else float(count)


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


def collation(loader: Any) -> Callable[[list[Any]], Any]:
    """How a loader makes a batch of items; one that leaves batching to its sampler or data set does not say so.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> collation(DataLoader([0.5, 0.25], batch_size=None))([0.5, 0.25])
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    given = getattr(loader, "collate_fn", None)
    collate: Callable[[list[Any]], Any] = default_collate if given in (None, default_convert) else given
    return collate


def first_items(trainer: Any, pl_module: Any, loader: Any, positions: list[int]) -> Any | None:
    """A batch of a few items of a loader's data set, as a step gets it; None where it has no indices.

    Nothing is taken from the loader, and no random state moves.

    Args:
        trainer: of the run.
        pl_module: its module.
        loader: a ``DataLoader``; others are not read.
        positions: of the items; those that the data set does not hold are left out.
    """
    dataset: Any = getattr(loader, "dataset", None)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        return None
    kept = [position for position in positions if not hasattr(dataset, "__len__") or position < len(dataset)]
    if not kept:
        return None
    with kept_random_state(0, pl_module.device):
        return on_device(trainer, pl_module, collation(loader)([dataset[position] for position in kept]))


class EvaluatedSamples:
    """The samples of one evaluation: which of them are measured, each once over all ranks.

    Args:
        trainer: while it evaluates.
        max_samples: how many are measured; they are drawn with a fixed seed, class by class where the labels are known.
            None: all.
        labels: gives the label of every point of a data set where it is known at little cost, else None.
        left_out: samples that are not measured, shape (k,), int64.

    Raises:
        UserError: points may come twice, or nobody can tell which rank reads which point.
    """

    def __init__(
        self,
        trainer: Any,
        max_samples: int | None = None,
        labels: Callable[[Any], Tensor | None] = lambda _: None,
        left_out: Callable[[EvaluationOrder, Tensor | None], Tensor] | None = None,
    ) -> None:
        loader = evaluation_loader(trainer)
        self.order = EvaluationOrder(loader, trainer.global_rank, trainer.world_size, max_evaluation_batches(trainer))
        self._drawn = self.order.draw(max_samples, lambda: labels(loader.dataset))
        self.left_out = torch.empty(0, dtype=torch.int64) if left_out is None else left_out(self.order, self._drawn)
        self._digests: list[bytes] = []

    @property
    def known(self) -> bool:
        """Whether samples are known by their position in the data set."""
        return self.order.known

    def some(self, count: int) -> list[int]:
        """A few positions in the data set, from everywhere, for a trial."""
        positions = self._drawn if self.known and self._drawn is not None else self.order.support
        if positions is None:
            return list(range(count))
        spread = torch.linspace(0, len(positions) - 1, min(count, len(positions))).long()
        chosen: list[int] = without_repeats(positions[spread]).tolist()
        return chosen

    def next(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Which samples the next batch of this rank holds.

        Args:
            inputs: shape (n, ...).
            labels: shape (n,).

        Returns:
            shape (n,), int64, on the CPU: positions in the data set where :attr:`known`, else running numbers; -1 for a
            sample that is not to be measured.
        """
        found = self.order.next(len(labels))
        if self.order.own:
            self._digests += [_digest(*row) for row in zip(inputs.detach().cpu(), labels.detach().cpu(), strict=True)]
        if self._drawn is not None:
            found = torch.where(torch.isin(found, self._drawn), found, -1)
        return torch.where(torch.isin(found, self.left_out), -1, found)

    def count_here(self, trainer: Any) -> bool:
        """Whether this rank's samples count; every rank must ask, when it has read all of its own.

        Ranks that read loaders of their own may read the same samples (then the first rank's count) or other ones (then
        all count).

        Raises:
            UserError: some of the samples are the same, and some are not.
        """
        if not self.order.own:
            return True
        shares = [set(share) for share in from_all_ranks(trainer, lambda: self._digests)]
        if all(share == shares[0] for share in shares):
            return bool(trainer.is_global_zero)
        if len(set().union(*shares)) == sum(map(len, shares)):
            return True
        raise UserError(
            "the ranks evaluate samples of which some are the same and some are not, so that nobody can count each "
            "once; let Lightning deal them (use_distributed_sampler=True), or give each rank a Subset of its own"
        )


def _digest(one_input: Tensor, label: Tensor) -> bytes:
    numbers = one_input.float().contiguous().numpy().tobytes() + str(int(label)).encode()
    return hashlib.blake2b(numbers, digest_size=12).digest()
