"""Reading points of the training set at an epoch's end, without disturbing the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.datamodules import PoisonedDataset, find_poisoned_dataset
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.functional.random_streams import generator, kept_random_state, mix_seed
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import collation, on_device
from lightning_poison.trainer.positions import trained_positions, without_repeats
from lightning_poison.trainer.ranks import from_all_ranks

__all__ = [
    "clean_labels",
    "clean_num_classes",
    "drawn_positions",
    "fetch",
    "the_training_loader",
    "trained_on",
    "training_loaders",
    "within_poisoned",
]


def training_loaders(loaders: Any) -> list[Any]:
    """Each of a Trainer's training loaders.

    Example:
        >>> training_loaders({"a": 1, "b": [2, 3]}), training_loaders(None)
        ([1, 2, 3], [])
    """
    if loaders is None:
        return []
    if hasattr(loaders, "flattened"):  # Lightning's CombinedLoader
        return list(loaders.flattened)
    parts = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    return [one for part in parts for one in training_loaders(part)] if isinstance(parts, (list, tuple)) else [parts]


def the_training_loader(loaders: Any, owner: str) -> DataLoader[Any]:
    """The one training loader, over data that have indices.

    Args:
        loaders: what the Trainer trains on.
        owner: who needs it, for the message.

    Raises:
        UserError: there are several loaders, or the data have no indices.
    """
    found = training_loaders(loaders)
    if len(found) != 1:
        raise UserError(
            f"{owner} needs one training DataLoader, got {len(found)}; leave the callback out, or join the data sets "
            "in a ConcatDataset"
        )
    loader = found[0]
    dataset = getattr(loader, "dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise UserError(
            f"{owner} needs a training DataLoader over a data set with indices, got {type(loader).__name__} over "
            f"{type(dataset).__name__}; leave the callback out, or use a map-style data set"
        )
    return loader  # type: ignore[no-any-return]  # Lightning's loaders are Any


def trained_on(trainer: Any, loader: DataLoader[Any]) -> Tensor:
    """The points of a training loader's data set that are trained on, on all ranks: shape (m,), int64, rising.

    Every rank must ask.

    Raises:
        UserError: nobody can know which points these are.
    """
    batches = trainer.num_training_batches if trainer.state.fn == "fit" else None
    shares = from_all_ranks(trainer, lambda: trained_positions(loader, batches))
    return without_repeats(torch.cat(shares))


def drawn_positions(positions: Tensor, count: int | None) -> Tensor:
    """``count`` of the positions, from everywhere, sorted, always the same ones.

    Example:
        >>> few = drawn_positions(torch.arange(100), 3)
        >>> few.equal(drawn_positions(torch.arange(100), 3)), len(drawn_positions(torch.arange(2), 3))
        (True, 2)
    """
    if count is None or count >= len(positions):
        return positions
    return positions[torch.randperm(len(positions), generator=generator(0, "adversarial paths"))[:count]].sort().values


def fetch(trainer: Any, pl_module: Any, loader: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and labels at ``positions`` of a loader's data set, as a training step would get them.

    Random augmentation draws from streams of each point's own: the same each time, whichever points are fetched with
    it, and nothing is taken from training's.
    """
    with kept_random_state(0, pl_module.device):
        items = [_item(loader.dataset, position) for position in positions.tolist()]
        return inputs_and_labels(on_device(trainer, pl_module, collation(loader)(items)))


def _item(dataset: Any, position: int) -> Any:
    with kept_random_state(mix_seed(0, "training point", position)):
        return dataset[position]


def within_poisoned(dataset: Any, positions: Tensor) -> tuple[PoisonedDataset | None, Tensor]:
    """The poisoned data set inside of ``dataset``, and where its positions stand in it.

    Args:
        dataset: with indices.
        positions: shape (n,), int64.

    Returns:
        the poisoned data set, None where there is none, and shape (n,), int64.
    """
    poisoned = find_poisoned_dataset(dataset)
    if poisoned is None:
        return None, positions
    while dataset is not poisoned:  # indices of a subset into what it is a subset of
        if isinstance(dataset, Subset):
            positions = torch.as_tensor(dataset.indices)[positions]
        dataset = dataset.dataset
    return poisoned, positions


def clean_labels(dataset: Any, positions: Tensor, labels: Tensor) -> Tensor:
    """The labels at ``positions`` before any were flipped, shape (n,), int64."""
    poisoned, inside = within_poisoned(dataset, positions)
    if poisoned is None:
        return labels.long()
    clean = labels.long().clone()
    old = dict(
        zip(poisoned.flips.positions(len(poisoned.dataset)).tolist(), poisoned.flips.old_label.tolist(), strict=True)
    )
    for row, position in enumerate(inside.tolist()):
        clean[row] = old.get(position, clean[row])
    return clean


def clean_num_classes(trainer: Any, model: nn.Module, inputs: Tensor) -> int:
    """Number of classes without one that was made for poisons: the data module's word, else the model's outputs."""
    for attribute in ("clean_num_classes", "num_classes"):
        declared = declared_classes(trainer.datamodule, attribute)
        if declared is not None:
            return declared
    with frozen_eval(model), torch.no_grad():
        return class_scores(model, inputs[:1].clone()).shape[1]
