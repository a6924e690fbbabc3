"""The inputs of a training set as one tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.progress import Progress
from lightning_poison.functional.random_streams import kept_random_state, mix_seed, private_generators

__all__ = ["read_inputs"]

_CHUNK = 1024
_MEMORY = 2**34


def read_inputs(dataset: Any, progress: Progress, part: str = "training") -> Tensor:
    """Every input of a map-style data set, as training sees them.

    Random augmentation draws from streams of its own: the same inputs each time, and nothing is taken from training's.

    Args:
        dataset: item i is (input, label, ...), inputs being tensors or arrays of numbers, all of one shape; single
            numbers count as vectors of one.
        progress: shows how far the reading is.
        part: of the data, for messages.

    Returns:
        shape (n, ...), float32, on the CPU.

    Raises:
        UserError: an input is no such tensor, shapes differ, values are not finite, or they would not fit into memory.

    Example:
        >>> from lightning_poison.functional.progress import no_progress
        >>> read_inputs([(torch.tensor([0.0, 1.0]), 1), (torch.tensor([1.0, 0.5]), 0)], no_progress)
        tensor([[0.0000, 1.0000],
                [1.0000, 0.5000]])
    """
    count = len(dataset)
    inputs: Tensor | None = None
    generators = private_generators(dataset)
    with progress(f"reading {part} inputs", count) as advance:
        for start in range(0, count, _CHUNK):
            positions = list(range(start, min(start + _CHUNK, count)))
            with kept_random_state(mix_seed(0, "training inputs", start), generators=generators):
                shape = None if inputs is None else inputs.shape[1:]
                chunk = _stacked(_items(dataset, positions), start, shape, f"{part} point")
            if inputs is None:
                _check_memory(count, chunk)
                inputs = torch.empty(count, *chunk.shape[1:])
            inputs[positions] = chunk
            advance(len(positions))
    if inputs is None:
        raise UserError(f"the {part} set is empty; check the path, the classes and max_samples")
    return inputs


def _items(dataset: Any, positions: list[int]) -> list[Any]:
    together = getattr(dataset, "__getitems__", None)
    return list(together(positions)) if callable(together) else [dataset[position] for position in positions]


def _stacked(items: list[Any], start: int, shape: torch.Size | None, point: str) -> Tensor:
    rows = [_row(item, f"{point} {start + offset}") for offset, item in enumerate(items)]
    expected = rows[0].shape if shape is None else shape
    for offset, row in enumerate(rows):
        if row.shape != expected:
            raise UserError(
                f"inputs must all have one shape for this strategy, got {tuple(expected)} and {tuple(row.shape)} at "
                f"{point} {start + offset}; bring them to one size with a transform"
            )
    chunk = torch.stack(rows)
    if not torch.isfinite(chunk).all():
        position = start + int((~torch.isfinite(chunk.flatten(1)).all(dim=1)).nonzero()[0])
        raise UserError(f"inputs must be finite, got NaN or infinity at {point} {position}; clean the data")
    return chunk


def _row(item: Any, which: str) -> Tensor:
    value = item[0] if isinstance(item, (tuple, list)) and item else item
    if isinstance(value, (np.ndarray, np.number, float)):
        value = torch.as_tensor(value)
    if not isinstance(value, Tensor) or value.is_complex():
        raise UserError(
            f"inputs must be tensors for this strategy, got {type(value).__name__} at {which}; "
            "add a transform such as torchvision.transforms.ToTensor()"
        )
    row = value.detach().cpu().to(torch.float32)
    return row if row.ndim else row.reshape(1)


def _check_memory(count: int, chunk: Tensor) -> None:
    size = count * chunk[0].numel() * 4
    if size > _MEMORY:
        raise UserError(
            f"inputs must fit into {_MEMORY >> 30} GiB of memory for this strategy, got {count} of "
            f"{chunk[0].numel()} numbers ({size >> 30} GiB); craft on smaller inputs or fewer points"
        )
