"""The labels of a data set without decoding its inputs, and the fingerprint that names its data."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from lightning_poison.datamodules.poisoned_dataset import PoisonedDataset, find_poisoned_dataset, item_label
from lightning_poison.errors import UserError
from lightning_poison.functional.progress import Progress, show_progress
from lightning_poison.functional.random_streams import kept_random_state, private_generators

__all__ = ["dataset_labels", "fingerprint", "known_labels"]

_SPREAD = 8  # items, evenly spaced, whose labels are compared
_CLASSES_CHECKED = 24  # of whose first items the labels are compared, too
_ITEMS = 64  # inputs that a fingerprint is of
_DIGITS = 16


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
    with kept_random_state(generators=private_generators(dataset)), _unnoticed(dataset):
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


def known_labels(dataset: Any) -> Tensor | None:
    """The label of every item, shape (n,), int64, where the data set's structure tells it; None where it does not.

    Unlike :func:`dataset_labels` it reads a few items only, and refuses nothing.

    Example:
        >>> known_labels(TensorDataset(torch.rand(2, 2), torch.tensor([1, 0]))), known_labels([(0.5, 1)])
        (tensor([1, 0]), None)
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__") or not len(dataset):
        return None
    with kept_random_state():
        try:
            labels = _stored_labels(dataset)
            return labels if labels is not None and _confirmed(dataset, labels, "evaluation") else None
        except (UserError, IndexError):
            return None


def _check_map_style(dataset: Any, part: str) -> None:
    indexable = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if isinstance(dataset, IterableDataset) or not indexable:
        raise UserError(
            f"the {part} set must be map-style (len and index), got {type(dataset).__name__}; "
            "labels of a stream cannot be flipped by index"
        )
    if len(dataset) == 0:
        raise UserError(f"the {part} set is empty; check the path, the classes and max_samples")


def _unnoticed(dataset: Any) -> AbstractContextManager[None]:
    """What is read here is not read by a training loader."""
    poisoned = find_poisoned_dataset(dataset)
    return nullcontext() if poisoned is None or poisoned.reading is None else poisoned.reading.unchanged()


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
    spread = torch.linspace(0, len(dataset) - 1, _SPREAD, dtype=torch.float64).long().tolist()
    _, classes = np.unique(labels.numpy(), return_index=True)
    positions = sorted({*spread, *classes[:_CLASSES_CHECKED].tolist()})
    return all(item_label(dataset[position], position, part) == int(labels[position]) for position in positions)


def _scanned_labels(dataset: Any, progress: Progress, part: str) -> Tensor:
    labels = torch.empty(len(dataset), dtype=torch.int64)
    with progress(f"reading {part} labels", len(dataset)) as advance:
        for position in range(len(dataset)):
            labels[position] = item_label(dataset[position], position, part)
            advance(1)
    return labels


# --- fingerprint ------------------------------------------------------------------------------------------------------


def fingerprint(dataset: Any, labels: Tensor, positions: Tensor | None = None) -> str:
    """SHA-256 over the number of points, every label and, where no decoding is needed, 64 evenly spaced inputs.

    Inputs count in raw form (``TensorDataset``, an attribute ``data``, file names in ``samples``), so transforms and
    augmentation do not change the fingerprint. Without such raw form only the labels count.

    Args:
        dataset: map-style data set.
        labels: shape (n,), integer: its clean labels, or those of the points at ``positions``.
        positions: shape (n,), int64: the points that are trained on; they count, too. None: all.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> labels = torch.tensor([0, 1])
        >>> fingerprint(TensorDataset(torch.zeros(2, 3), labels), labels)
        '1dff6f19e76c4a39'
    """
    digest = hashlib.sha256(f"{labels.numel()}\n".encode())
    digest.update(labels.cpu().numpy().astype("<i8").tobytes())
    if positions is not None:
        digest.update(positions.cpu().numpy().astype("<i8").tobytes())
    n = len(dataset) if positions is None else len(positions)
    for place in sorted(set(np.linspace(0, n - 1, min(n, _ITEMS)).astype(int).tolist())):
        raw = _raw_input(dataset, place if positions is None else int(positions[place]))
        if raw is not None:
            digest.update(raw)
    return digest.hexdigest()[:_DIGITS]


def _raw_input(dataset: Any, position: int) -> bytes | None:
    if isinstance(dataset, PoisonedDataset):
        if position >= len(dataset.dataset):
            return _bytes(dataset[position][0])
        return _raw_input(dataset.dataset, position)
    if isinstance(dataset, Subset):
        return _raw_input(dataset.dataset, int(dataset.indices[position]))
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            # ConcatDataset itself takes only parts that have a length; torch's Dataset does not declare one.
            if position < len(part):  # type: ignore[arg-type]
                return _raw_input(part, position)
            position -= len(part)  # type: ignore[arg-type]
    if isinstance(dataset, TensorDataset):
        return _bytes(dataset.tensors[0][position])
    return _stored_input(dataset, position)


def _stored_input(dataset: Any, position: int) -> bytes | None:
    data = getattr(dataset, "data", None)
    if isinstance(data, (Tensor, np.ndarray)) and len(data) == len(dataset):
        return _bytes(data[position])
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, (list, tuple)) and len(samples) == len(dataset):
        sample = samples[position]
        if isinstance(sample, (list, tuple)) and sample and isinstance(sample[0], (str, Path)):
            return "/".join(Path(sample[0]).parts[-2:]).encode()
    return None


def _bytes(values: Any) -> bytes:
    array = values.detach().cpu() if isinstance(values, Tensor) else values
    if isinstance(array, Tensor):
        array = array.to(torch.float32) if array.dtype == torch.bfloat16 else array
        array = array.numpy()
    return np.ascontiguousarray(array).tobytes()
