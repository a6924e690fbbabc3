"""Memory that a step frees, kept for the next step."""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["keep_freed_memory"]

_LARGEST = 31 * 2**20  # bytes; the C library takes no threshold above 32 MiB from what it sees


@cache
def keep_freed_memory() -> None:
    """Make the C library keep what a training step frees, up to twice 31 MiB, once in the life of the process.

    It gives large blocks back to the system at once, and each step then waits for new pages, which costs a stack of
    convolutions a third of its time. The GNU library learns from what a program does: after one large block has been
    freed, blocks of that size are kept (its manual: dynamic mmap threshold). Elsewhere this does nothing.

    Example:
        >>> keep_freed_memory()
    """
    torch.empty(_LARGEST, dtype=torch.uint8)
