"""How often a training run forgot a point."""

from __future__ import annotations

from torch import Tensor

__all__ = ["forgetting_events"]


def forgetting_events(right: Tensor) -> Tensor:
    """How often each point went from right to wrong between one look at it and the next.

    Source: Toneva et al., "An empirical study of example forgetting during deep neural network learning", 2019,
    section 3. A point that is never right has no event; the paper counts it as forgotten infinitely often.

    Args:
        right: shape (T, n), bool: whether each point was predicted right at each look.

    Returns:
        shape (n,), int64.

    Example:
        >>> import torch
        >>> forgetting_events(torch.tensor([[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]).bool())
        tensor([1, 2, 0])
    """
    return (right[:-1] & ~right[1:]).sum(dim=0)
