"""Code that draws from the global random streams, kept from disturbing them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["kept_random_state"]


@contextmanager
def kept_random_state(seed: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Put the global generators of ``random``, NumPy and torch back on the way out.

    Random augmentation, a stochastic victim or a foreign attack that runs inside leaves no trace on the training that
    follows.

    Args:
        seed: of the streams inside, so that they are the same on every rank; None: they go on from where they are.
        device: whose generator to keep (and seed), besides the CPU's.

    Example:
        >>> with kept_random_state():
        ...     inside = torch.rand(1)
        >>> torch.equal(inside, torch.rand(1))
        True
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  # others draw from it
    cuda = device if device is not None and device.type == "cuda" else None
    cuda_state = None if cuda is None else torch.cuda.get_rng_state(cuda)
    try:
        if seed is not None:
            _seed(seed, cuda)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if cuda is not None and cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, cuda)


def _seed(seed: int, device: torch.device | None) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # not ``torch.manual_seed``: nobody puts the other devices back
    if device is not None:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
