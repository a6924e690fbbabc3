"""Explicit random streams: the same numbers on every rank, after every resume."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["generator", "mix_seed", "uniform_noise"]


def mix_seed(seed: int, *keys: int | str) -> int:
    """A 63-bit seed that depends on ``seed`` and every key, and on nothing else.

    Unlike ``seed + key`` two different tuples do not share a stream.

    Example:
        >>> mix_seed(0, "shuffle", 1) != mix_seed(1, "shuffle", 0)
        True
    """
    text = "\x1f".join(str(part) for part in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator seeded with :func:`mix_seed`, independent of the global state.

    Example:
        >>> torch.rand(2, generator=generator(0, "demo")).equal(torch.rand(2, generator=generator(0, "demo")))
        True
    """
    return torch.Generator().manual_seed(mix_seed(seed, *keys))


def uniform_noise(shape: torch.Size, sample_ids: Tensor, seed: int, *keys: int | str) -> Tensor:
    """Noise in [-1, 1) that belongs to each sample, however samples are batched or spread over ranks.

    Args:
        shape: (N, ...) of the result.
        sample_ids: shape (N,), int64: the sample's position in its data set.
        seed: the attack's seed.
        keys: more to tell streams apart, such as the number of the restart.

    Returns:
        shape (N, ...), float32, on the CPU.

    Example:
        >>> whole = uniform_noise(torch.Size([3, 2]), torch.arange(3), 0)
        >>> whole[1:].equal(uniform_noise(torch.Size([2, 2]), torch.arange(1, 3), 0))
        True
    """
    noise = torch.empty(shape)
    for row, sample in zip(noise, sample_ids.tolist(), strict=True):
        row.uniform_(-1, 1, generator=generator(seed, *keys, sample))
    return noise
