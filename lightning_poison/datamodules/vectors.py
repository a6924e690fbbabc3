"""Feature vectors that fit into memory."""

from __future__ import annotations

from lightning_poison.datamodules.stored_tensors import StoredTensors

__all__ = ["Vectors"]


class Vectors(StoredTensors):
    """Items are (vector, label).

    Args:
        data: shape (n, d), float32.
        targets: shape (n,), int64.
        transform: augmentation of one vector.

    Example:
        >>> import torch
        >>> vectors = Vectors(torch.eye(2), torch.tensor([1, 0]))
        >>> vectors[1][0].tolist(), vectors[1][1], len(vectors)
        ([0.0, 1.0], 0, 2)
    """
