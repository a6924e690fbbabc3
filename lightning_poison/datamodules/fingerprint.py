"""A short name for a training set: the same in every process, another for other data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from lightning_poison.datamodules.poisoned_dataset import PoisonedDataset

__all__ = ["fingerprint"]

_ITEMS = 64
_DIGITS = 16


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
