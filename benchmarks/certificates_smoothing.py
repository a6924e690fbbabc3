"""Algorithm 1 on all points of MNIST 1/7 at one q, against what one would write first, and against exponentials alone.

The weights are given to every side. Peers solve some of the points, one after the other; their time is scaled up.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from lightning_poison.certificates import PCAFeatures
from lightning_poison.certificates.smoothing import smoothed_predictions
from lightning_poison.functional.ridge import Ridge

__all__ = ["run"]

TRAINING, POINTS, Q = 13_007, 2163, 0.1
BY_SCIPY, BY_NUMPY = 60, 200
PASSES = 2  # one over all weights to find t, one to evaluate the bound


def run() -> list[Row]:
    """Chernoff bounds of every point; the objective values of all sides agree."""
    weights, labels = _problem()
    signed = (weights * (2 * labels - 1)).numpy()
    bounds = smoothed_predictions(weights, labels, Q).log_error[:BY_SCIPY].numpy()
    for peer in (_by_scipy, _by_newton):
        np.testing.assert_allclose(bounds, [peer(margin) for margin in signed[:BY_SCIPY]], rtol=1e-3, atol=0.05)
    out = torch.empty(40, TRAINING, dtype=torch.float64)
    ours, sharper, scipy, newton, exponentials = paired_seconds(
        lambda: smoothed_predictions(weights, labels, Q),
        lambda: smoothed_predictions(weights, labels, Q, tail="berry_esseen"),
        lambda: [_by_scipy(margin) for margin in signed[:BY_SCIPY]],
        lambda: [_by_newton(margin) for margin in signed[:BY_NUMPY]],
        lambda: [torch.exp(part, out=out[: len(part)]) for part in weights.split(40)],
    )
    scipy = [seconds * POINTS / BY_SCIPY for seconds in scipy]
    newton = [seconds * POINTS / BY_NUMPY for seconds in newton]
    needed = [seconds * PASSES for seconds in exponentials]
    subject = f"Algorithm 1, {POINTS:,} points, n = {TRAINING:,}, q = {Q}"
    return [
        row("certificates", subject, "SciPy minimize per point", median_ratio(ours, scipy), 1 / 8),
        row("certificates", subject, "NumPy Newton per point", median_ratio(ours, newton), 1 / 2.5),
        row("certificates", subject, f"{PASSES} passes of exp over the weights", median_ratio(ours, needed), 3.0),
        row("certificates", f"{subject}, Berry-Esseen", "Chernoff alone", median_ratio(sharper, ours), 2.0),
    ]


def _by_scipy(margin: np.ndarray) -> float:
    """The paper's objective, log-convex in t, minimised by BFGS with its gradient."""

    def objective(t: np.ndarray) -> tuple[float, np.ndarray]:
        kept, flipped = (1 - Q) * np.exp(-t * margin), Q * np.exp(t * margin)
        total = kept + flipped
        return float(np.log(total).sum()), np.array([((flipped - kept) * margin / total).sum()])

    return min(float(minimize(objective, np.zeros(1), jac=True, method="BFGS").fun), 0.0)


def _by_newton(margin: np.ndarray) -> float:
    """Newton's method in float64 on one point."""
    t, limit = 0.0, 1 / np.abs(margin).max()
    for _ in range(30):
        flipped = 1 / (1 + np.exp(np.log((1 - Q) / Q) - 2 * t * margin))
        slope = -(margin * (1 - 2 * flipped)).sum()
        step = np.clip(-slope / (4 * margin**2 * flipped * (1 - flipped)).sum(), -limit, limit)
        t += step
        if abs(step) < 1e-6 * abs(t):
            break
    return min(float(np.log((1 - Q) * np.exp(-t * margin) + Q * np.exp(t * margin)).sum()), 0.0)


def _problem() -> tuple[Tensor, Tensor]:
    """Weights (m, n) of ridge regression and labels in order: MNIST 1/7 where it is, else made up, of the same size."""
    inputs, labels, points = _mnist() if os.environ.get("LIGHTNING_POISON_DATA") else _made_up()
    order = labels.argsort(stable=True)
    features = PCAFeatures(50).fit(inputs)
    ridge = Ridge(features.transform(inputs)[order], 1.0)
    return ridge.weights(features.transform(points)), labels[order]


def _mnist() -> tuple[Tensor, Tensor, Tensor]:
    from torchvision.datasets import MNIST

    parts = []
    for train in (True, False):
        data = MNIST(os.environ["LIGHTNING_POISON_DATA"], train=train)
        kept = (data.targets == 1) | (data.targets == 7)
        parts.append((data.data[kept].float().flatten(1) / 255, (data.targets[kept] == 7).long()))
    return parts[0][0], parts[0][1], parts[1][0]


def _made_up() -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (TRAINING,), generator=stream)
    inputs = torch.randn(TRAINING + POINTS, 60, generator=stream)
    inputs[:TRAINING, 0] += 4.0 * labels
    inputs[TRAINING:, 0] += 4.0 * torch.randint(2, (POINTS,), generator=stream)
    return inputs[:TRAINING], labels, inputs[TRAINING:]
