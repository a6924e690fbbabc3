"""Interleaved timing and the rows that come out of it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

__all__ = ["Row", "machine", "median_ratio", "paired_seconds", "row"]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        benchmark: name of the benchmark.
        subject: what was timed.
        against: what it was compared with in the same run.
        ratio: seconds of the subject per second of the other, median over interleaved runs.
        target: the ratio to stay below.
        met: whether it does.
        machine: processor, threads and torch.
    """

    benchmark: str
    subject: str
    against: str
    ratio: float
    target: float
    met: bool
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return asdict(self)


def machine() -> str:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def row(benchmark: str, subject: str, against: str, ratio: float, target: float) -> Row:
    """A row; a ratio is met when it is at most its target."""
    return Row(benchmark, subject, against, round(ratio, 4), target, ratio <= target, machine())


def paired_seconds(*jobs: Callable[[], object], rounds: int = 5, warmup: int = 1) -> list[list[float]]:
    """Wall seconds of each job, run in turn so that a drifting machine slows them alike.

    Returns:
        one list a job, one entry a counted round.
    """
    seconds: list[list[float]] = [[] for _ in jobs]
    for number in range(warmup + rounds):
        for times, job in zip(seconds, jobs, strict=True):
            begun = time.perf_counter()
            job()
            if number >= warmup:
                times.append(time.perf_counter() - begun)
    return seconds


def median_ratio(subject: list[float], against: list[float]) -> float:
    """Median of the ratios round by round."""
    return median(one / other for one, other in zip(subject, against, strict=True))
