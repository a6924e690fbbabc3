"""Foreign code that draws from the global random streams, kept from disturbing them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["own_random_streams"]


@contextmanager
def own_random_streams(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's, NumPy's and Python's global streams inside, and put them back as they were.

    Args:
        seed: of the streams inside.
        device: whose streams to put back, besides the CPU's.

    Example:
        >>> before = torch.get_rng_state()
        >>> with own_random_streams(0, torch.device("cpu")):
        ...     _ = torch.rand(3), random.random(), np.random.rand()
        >>> torch.get_rng_state().equal(before)
        True
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
