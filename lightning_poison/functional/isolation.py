"""A run that neither feels nor leaves a trace in the process that it runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from lightning_poison.functional.random_state import kept_random_state

__all__ = ["isolated_run"]


@contextmanager
def isolated_run(seed: int) -> Iterator[None]:
    """Seed the global generators, compute on one thread with gradients possible, and put everything back.

    On one thread sums have one order, so that a run comes out the same in whatever process and beside however many
    others it is computed. Speed comes from runs side by side.

    Args:
        seed: of the global generators inside.

    Example:
        >>> with isolated_run(7):
        ...     first = torch.rand(2)
        >>> with isolated_run(7):
        ...     print(torch.rand(2).equal(first), torch.get_num_threads())
        True 1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            _libraries().limit(limits=1),
            kept_random_state(seed),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
