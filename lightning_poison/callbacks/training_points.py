"""Reading points of the training set at an epoch's end, without disturbing the training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.datamodules import find_poisoned_dataset
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import on_device

__all__ = ["clean_labels", "clean_num_classes", "drawn_positions", "fetch", "training_set"]


def training_set(trainer: Any) -> Any:
    """The data set behind the one training loader.

    Raises:
        UserError: there are several loaders, or the data have no indices.
    """
    loader = trainer.train_dataloader
    dataset = getattr(loader, "dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise UserError(
            f"AdversarialPaths needs one training DataLoader over a data set with indices, got {type(loader).__name__} "
            f"over {type(dataset).__name__}; leave the callback out, or use a map-style data set"
        )
    return dataset


def drawn_positions(length: int, count: int | None) -> Tensor:
    """``count`` of ``length`` positions from everywhere, sorted, always the same ones.

    Example:
        >>> drawn_positions(100, 3).equal(drawn_positions(100, 3)), len(drawn_positions(2, 3))
        (True, 2)
    """
    if count is None or count >= length:
        return torch.arange(length)
    return torch.randperm(length, generator=generator(0, "adversarial paths"))[:count].sort().values


def fetch(trainer: Any, pl_module: Any, dataset: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and labels at ``positions``, as a training step would get them.

    Random augmentation draws from streams of each point's own: the same each time, whichever points are fetched with
    it, and nothing is taken from training's.
    """
    with kept_random_state(0, pl_module.device):
        items = [_item(dataset, position) for position in positions.tolist()]
        return inputs_and_labels(on_device(trainer, pl_module, trainer.train_dataloader.collate_fn(items)))


def _item(dataset: Any, position: int) -> Any:
    with kept_random_state(mix_seed(0, "training point", position)):
        return dataset[position]


def clean_labels(dataset: Any, positions: Tensor, labels: Tensor) -> Tensor:
    """The labels at ``positions`` before any were flipped, shape (n,), int64."""
    poisoned = find_poisoned_dataset(dataset)
    if poisoned is None:
        return labels.long()
    while dataset is not poisoned:  # indices of a subset into what it is a subset of
        if isinstance(dataset, Subset):
            positions = torch.as_tensor(dataset.indices)[positions]
        dataset = dataset.dataset
    clean = labels.long().clone()
    old = dict(
        zip(poisoned.flips.positions(len(poisoned.dataset)).tolist(), poisoned.flips.old_label.tolist(), strict=True)
    )
    for row, position in enumerate(positions.tolist()):
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
