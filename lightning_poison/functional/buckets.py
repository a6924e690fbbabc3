"""Dividing points into buckets by a length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["order_ranks", "quantile_buckets", "width_buckets"]


def order_ranks(*keys: Tensor) -> Tensor:
    """The place of each point when they are sorted by the first key, ties by the second, ..., at last by position.

    Args:
        keys: each of shape (m,); no NaN.

    Returns:
        shape (m,), int64: 0 for the smallest, m - 1 for the largest.

    Example:
        >>> order_ranks(torch.tensor([3, 1, 3, 1]), torch.tensor([0.5, 0.9, 0.1, 0.9]))
        tensor([3, 0, 2, 1])
    """
    order = torch.from_numpy(np.lexsort([key.numpy() for key in reversed(keys)]))
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks


def quantile_buckets(ranks: Tensor, num_buckets: int) -> Tensor:
    """Buckets of equal size: bucket k holds the places from m k / B up to m (k + 1) / B, rounded up.

    Args:
        ranks: shape (m,), int64: a permutation of 0, ..., m - 1.
        num_buckets: B; with m < B some buckets are empty.

    Returns:
        shape (m,), int64, in [0, B - 1]; sizes differ by at most one.

    Example:
        >>> quantile_buckets(torch.tensor([4, 0, 1, 3, 2]), 2)
        tensor([1, 0, 0, 1, 0])
    """
    return ranks * num_buckets // max(len(ranks), 1)


def width_buckets(lengths: Tensor, reached: Tensor, num_buckets: int) -> Tensor:
    """Buckets of equal width between the shortest and the longest path that ended; the others go into the last one.

    Lengths are whole numbers, so that of the lengths a, ..., z bucket k holds those with
    k <= B (length - a) / (z - a + 1) < k + 1.

    Args:
        lengths: shape (m,), int64.
        reached: shape (m,), bool: which paths ended; at least one.
        num_buckets: B; with fewer lengths than B some buckets are empty.

    Returns:
        shape (m,), int64, in [0, B - 1].

    Example:
        >>> lengths, reached = torch.tensor([10, 14, 19, 10, 200]), torch.tensor([True, True, True, True, False])
        >>> width_buckets(lengths, reached, 2)
        tensor([0, 0, 1, 0, 1])
    """
    low, high = int(lengths[reached].min()), int(lengths[reached].max())
    buckets = (lengths - low) * num_buckets // (high - low + 1)
    return torch.where(reached, buckets, num_buckets - 1)
