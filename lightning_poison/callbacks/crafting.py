"""What a poisoning strategy looks at when it works with the network of a run."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from lightning_poison.attacks.outputs import selected_output
from lightning_poison.datamodules import PoisonedDataset, dataset_labels, find_poisoned_dataset, fingerprint
from lightning_poison.datamodules.train_loader import check_train_loader
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.poisons import PoisonList, TrainingSet
from lightning_poison.trainer.progress import progress

__all__ = ["clean_training_set", "copy_of", "loader_dataset", "poison_pictures"]


def clean_training_set(trainer: Any, positions: Tensor, known: TrainingSet | None = None) -> TrainingSet:
    """The training data of a run without flips, with the fingerprint that a later run finds.

    Args:
        trainer: has a training loader.
        positions: the points that are trained on, shape (m,), int64.
        known: what was found before; it is returned if the data are the same.

    Raises:
        UserError: labels are flipped, there are several loaders, or the labels cannot be read.
    """
    owner = trainer.lightning_module if trainer.datamodule is None else trainer.datamodule
    loader = check_train_loader(trainer.train_dataloader, type(owner).__name__)
    dataset: Any = loader.dataset
    poisoned = find_poisoned_dataset(dataset)
    if poisoned is not None and len(poisoned.flips):
        raise UserError(
            f"CraftFlips needs a run on clean labels, got one with {len(poisoned.flips)} poisons; "
            "take the poison out (--poison=null) and craft again"
        )
    if isinstance(dataset, PoisonedDataset):
        dataset = dataset.dataset
    whole = len(positions) == len(dataset)
    if known is not None and loader_dataset(known) is dataset:
        before = torch.arange(known.num_points) if known.positions is None else known.positions
        if before.equal(positions):
            return known
    shown = partial(progress, trainer)
    labels = dataset_labels(dataset, shown)[positions]
    return TrainingSet(
        labels,
        declared_classes(trainer.datamodule) or int(labels.max()) + 1,
        fingerprint(dataset, labels, None if whole else positions),
        dataset if whole else Subset(dataset, positions.tolist()),
        progress=shown,
        positions=None if whole else positions,
    )


def loader_dataset(training_set: TrainingSet) -> Any:
    """The data set that the training loader reads."""
    return training_set.dataset if training_set.positions is None else training_set.dataset.dataset


def copy_of(pl_module: nn.Module, output: int | str | None = None) -> nn.Module:
    """A network like the module, in single precision; the module itself where it cannot be copied.

    Args:
        pl_module: the trained module.
        output: where the logits stand in what its forward returns; None: it returns the logits.

    Example:
        >>> module = nn.Linear(2, 2)
        >>> copied = copy_of(module)
        >>> copied is module, torch.equal(copied.weight, module.weight)
        (False, True)
    """
    try:
        network = copy.deepcopy(pl_module).float()
    except Exception:  # noqa: BLE001  # somebody's module may hold whatever cannot be copied, and say so in any way
        network = pl_module
    return selected_output(network, output)


def poison_pictures(dataset: Any, flips: PoisonList, count: int) -> tuple[Tensor, list[str]] | None:
    """Some poisons from all over the list, and which class becomes which; None where they are no pictures.

    Args:
        dataset: the clean data.
        flips: at least one poison.
        count: how many at most.

    Returns:
        shape (m, C, H, W) in [0, 1], and m titles.
    """
    rows = sorted(set(torch.linspace(0, len(flips) - 1, count, dtype=torch.float64).long().tolist()))
    poisoned = PoisonedDataset(dataset, flips)
    positions = flips.positions(len(dataset))
    with kept_random_state(0):
        found = [poisoned[int(positions[row])][0] for row in rows]
    if not all(isinstance(picture, Tensor) and picture.ndim == 3 for picture in found):
        return None
    if len({picture.shape for picture in found}) > 1 or len(found[0]) not in (1, 3):
        return None
    pictures = torch.stack(found).float()
    low, high = min(0.0, float(pictures.min())), max(1.0, float(pictures.max()))
    titles = [f"{int(flips.old_label[row])} → {int(flips.new_label[row])}" for row in rows]
    return (pictures - low) / (high - low), titles
