"""The labels of a data set, found without decoding its inputs where that is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from lightning_poison.datamodules.poisoned_dataset import PoisonedDataset
from lightning_poison.errors import UserError
from lightning_poison.functional.progress import Progress, show_progress
from lightning_poison.functional.random_state import kept_random_state, private_generators

__all__ = ["dataset_labels"]

_SPREAD = 8
_CLASSES_CHECKED = 24


def dataset_labels(dataset: Any, progress: Progress = show_progress, part: str = "training") -> Tensor:
    """The label of every item of a map-style data set.

    Labels are taken from the data set's structure (a poisoned data set, ``Subset``, ``ConcatDataset``,
    ``TensorDataset``, an attribute ``targets`` or ``labels``) and compared with those of a few items; where there is
    no such structure, or an item contradicts it, every item is read. Which items are read depends on labels: the
    global random state and the generators that the data set holds are left as they were.

    Args:
        dataset: item i is (input, label, ...).
        progress: shows how far the reading is, where every item is read.
        part: of the data, for messages.

    Returns:
        shape (n,), int64.

    Raises:
        UserError: the data set cannot be indexed, is empty, or its labels are not integers of at least 0.

    Example:
        >>> dataset = TensorDataset(torch.rand(4, 2), torch.tensor([0, 1, 2, 1]))
        >>> dataset_labels(Subset(dataset, [3, 0]))
        tensor([1, 0])
    """
    _check_map_style(dataset, part)
    with kept_random_state(generators=private_generators(dataset)):
        labels = _stored_labels(dataset)
        if labels is None or not _confirmed(dataset, labels, part):
            labels = _scanned_labels(dataset, progress, part)
    if (labels < 0).any():
        position = int((labels < 0).nonzero()[0])
        raise UserError(
            f"labels must be at least 0, got {int(labels[position])} at {part} point {position}; "
            "number the classes 0 to K - 1"
        )
    return labels


def _check_map_style(dataset: Any, part: str) -> None:
    indexable = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if isinstance(dataset, IterableDataset) or not indexable:
        raise UserError(
            f"the {part} set must be map-style (len and index), got {type(dataset).__name__}; "
            "labels of a stream cannot be flipped by index"
        )
    if len(dataset) == 0:
        raise UserError(f"the {part} set is empty; check the path, the classes and max_samples")


def _stored_labels(dataset: Any) -> Tensor | None:
    if isinstance(dataset, PoisonedDataset):
        inner = _stored_labels(dataset.dataset)
        return None if inner is None else dataset.flips.apply(inner)
    if isinstance(dataset, Subset):
        inner = _stored_labels(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [_stored_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    if isinstance(dataset, TensorDataset):
        return _as_labels(dataset.tensors[1], len(dataset)) if len(dataset.tensors) > 1 else None
    if getattr(dataset, "target_transform", None) is not None:
        return None  # the stored labels are not the ones that come out
    for name in ("targets", "labels"):
        labels = _as_labels(getattr(dataset, name, None), len(dataset))
        if labels is not None:
            return labels
    return None


def _as_labels(values: Any, length: int) -> Tensor | None:
    if values is None or isinstance(values, (str, bytes)):
        return None
    try:
        array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError):
        return None
    if array.shape != (length,) or array.dtype.kind not in "iu":
        return None
    return torch.from_numpy(array.astype(np.int64))


def _confirmed(dataset: Any, labels: Tensor, part: str) -> bool:
    if labels.numel() != len(dataset):
        return False
    spread = torch.linspace(0, len(dataset) - 1, _SPREAD).long().tolist()
    _, classes = np.unique(labels.numpy(), return_index=True)
    positions = sorted({*spread, *classes[:_CLASSES_CHECKED].tolist()})
    return all(_item_label(dataset, position, part) == int(labels[position]) for position in positions)


def _scanned_labels(dataset: Any, progress: Progress, part: str) -> Tensor:
    labels = torch.empty(len(dataset), dtype=torch.int64)
    with progress(f"reading {part} labels", len(dataset)) as advance:
        for position in range(len(dataset)):
            labels[position] = _item_label(dataset, position, part)
            advance(1)
    return labels


def _item_label(dataset: Any, position: int, part: str) -> int:
    item = dataset[position]
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise UserError(
            f"{part} items must be (input, label, ...) tuples or lists, got {type(item).__name__} at {position}; "
            "wrap the data set so that its label stands second"
        )
    label = item[1]
    whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if isinstance(label, (Tensor, np.ndarray)):
        kind = torch.as_tensor(label)
        whole = kind.numel() == 1 and not kind.is_floating_point() and kind.dtype != torch.bool
    if not whole:
        raise UserError(
            f"labels must be integers, got {_shown(label)} at {part} point {position}; "
            "give class numbers 0 to K - 1, not one-hot or soft labels"
        )
    return int(label)


def _shown(label: Any) -> str:
    if isinstance(label, (Tensor, np.ndarray)):
        return f"{type(label).__name__} of shape {tuple(label.shape)}, dtype {label.dtype}"
    return repr(label)
