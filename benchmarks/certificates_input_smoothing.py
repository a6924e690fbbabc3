"""Input smoothing with 100,000 copies a point against ART's certify on the same network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta, norm
from torch import Tensor, nn

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import trained_network
from lightning_poison.certificates.input_smoothing import InputSmoothing

__all__ = ["run"]

N0, N, SIGMA, ALPHA, BATCH = 100, 100_000, 0.25, 0.001, 100
POINTS = {"StrideCNN": 2, "PoolCNN": 1}
RADII = (0.25, 0.5, 0.75, 1.0)
STOPPED, EVERY = 1 / 4, 1.0  # all copies through the same network: its own time is most of both sides


def run() -> list[Row]:
    """The same network, copies, error probability and batch size on both sides; seconds for the same points."""
    rows = []
    for kind, count in POINTS.items():
        net, images, _ = trained_network(kind)
        points = images[:count]
        name, theirs = _peer(net, points)
        jobs = [
            _Job(_ours(net, stop_early=True), points),
            _Job(_ours(net, stop_early=False), points),
            _Job(theirs, points),
        ]
        stopped, every, other = paired_seconds(*jobs, rounds=1, warmup=0)
        alike = sum(_reached(one) == _reached(two) for one, two in zip(jobs[0].radii, jobs[2].radii, strict=True))
        words = f"{kind}, n = {N:,}, stopped when decided at {RADII} ({alike} of {count} points decided alike)"
        rows.append(row("input smoothing", words, name, median_ratio(stopped, other), STOPPED))
        rows.append(row("input smoothing", f"{kind}, all {N:,} copies", name, median_ratio(every, other), EVERY))
    return rows


class _Job:
    """Certifies the points when called, and keeps the radii."""

    def __init__(self, certify: Callable[[Tensor], Tensor], points: Tensor) -> None:
        self._certify, self._points = certify, points
        self.radii: list[float] = []

    def __call__(self) -> None:
        self.radii = self._certify(self._points).tolist()


def _ours(net: nn.Module, *, stop_early: bool) -> Callable[[Tensor], Tensor]:
    method = InputSmoothing(SIGMA, n0=N0, n=N, alpha=ALPHA, batch_size=BATCH, stop_early=stop_early)
    return lambda points: method.certify(net, points, radii=RADII).radius


def _peer(net: nn.Module, points: Tensor) -> tuple[str, Callable[[Tensor], Tensor]]:
    """ART where it is installed (its certify needs statsmodels as well), else its loop."""
    if all(importlib.util.find_spec(name) for name in ("art", "statsmodels")):
        return "ART certify", _art(net, points)
    return "loop as in ART's certify (ART is not installed)", lambda points: _loop(net, points)


def _art(net: nn.Module, points: Tensor) -> Callable[[Tensor], Tensor]:
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    smoothed = PyTorchRandomizedSmoothing(
        model=net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(points.shape[1:]),
        nb_classes=10,
        clip_values=None,
        device_type="cpu",
        sample_size=N0,
        scale=SIGMA,
        alpha=ALPHA,
    )
    return lambda points: torch.from_numpy(smoothed.certify(points.numpy(), n=N, batch_size=BATCH)[1])


def _loop(net: nn.Module, points: Tensor) -> Tensor:
    """Each point's copies in one NumPy array, scores in another, as ART 1.20 does it."""
    radii = []
    for point in points.numpy():
        chosen = int(_counts(net, point, N0).argmax())
        votes = _counts(net, point, N)[chosen]
        bound = beta.ppf(ALPHA, votes, N - votes + 1)
        radii.append(SIGMA * norm.ppf(bound) if bound >= 0.5 else 0.0)
    return torch.tensor(radii)


def _counts(net: nn.Module, point: NDArray[Any], copies: int) -> NDArray[Any]:
    stream = np.random.default_rng(0)
    noisy = np.repeat(point[None], copies, axis=0)
    noisy = noisy + stream.normal(scale=SIGMA, size=noisy.shape).astype(np.float32)
    with torch.no_grad():
        scores = np.concatenate([net(torch.from_numpy(noisy[i : i + BATCH])).numpy() for i in range(0, copies, BATCH)])
    votes = np.zeros(scores.shape)
    votes[np.arange(copies), scores.argmax(1)] = 1
    return votes.sum(0)


def _reached(radius: float) -> int:
    return sum(radius >= asked for asked in RADII)
