"""The exact certificate of ridge on 60,000 points and 10 classes against a sort for each point and rival."""

from __future__ import annotations

from statistics import median

import torch
from torch import Tensor

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from lightning_poison.certificates import certify_label_linear
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.ridge import Ridge

__all__ = ["run"]

TRAINING, POINTS, CLASSES, DIMENSIONS = 60_000, 10_000, 10, 128
MEASURED, TARGET = 64, 1 / 3


def run() -> list[Row]:
    """Both sides start from the same weights and are timed on the same points; all radii are compared."""
    ridge, labels, points = _problem()
    weights = ridge.weights(points[:MEASURED])
    radius = certify_label_linear(weights, labels, CLASSES).radius
    differing = int((radius - _by_sorting(weights, labels)).abs().gt(0).sum())
    ours, theirs = paired_seconds(
        lambda: certify_label_linear(weights, labels, CLASSES), lambda: _by_sorting(weights, labels), rounds=3
    )
    subject = (
        f"exact certificate, {MEASURED} of {POINTS:,} points x {TRAINING:,} labels x {CLASSES} classes, "
        f"mean radius {radius.double().mean():.0f}, {differing} radii differ, "
        f"{median(ours) / MEASURED * POINTS / 60:.1f} min for all"
    )
    return [row("certificates", subject, "a sort per point and rival", median_ratio(ours, theirs), TARGET)]


def _problem() -> tuple[Ridge, Tensor, Tensor]:
    """Ten overlapping clusters."""
    stream = generator(0, "exact certificate")
    centres = torch.randn(CLASSES, DIMENSIONS, generator=stream)
    labels = torch.randint(CLASSES, (TRAINING + POINTS,), generator=stream)
    features = centres[labels] + 2 * torch.randn(TRAINING + POINTS, DIMENSIONS, generator=stream)
    return Ridge(features[:TRAINING], 0.3), labels[:TRAINING], features[TRAINING:]


def _by_sorting(weights: Tensor, labels: Tensor) -> Tensor:
    """The theorem as it stands: for each point and rival, all gains sorted and summed until they reach the margin."""
    radii = []
    for point in weights:
        scores = torch.zeros(CLASSES, dtype=torch.float64).index_add_(0, labels, point)
        own, fewest = int(scores.argmax()), len(labels) + 1
        for rival in range(CLASSES):
            if rival == own:
                continue
            gains = torch.where(
                labels == own,
                2 * point.clamp(min=0),
                torch.where(labels == rival, -2 * point.clamp(max=0), point.abs()),
            )
            total = gains.sort(descending=True).values.cumsum(0)
            fewest = min(fewest, int(torch.searchsorted(total, scores[own] - scores[rival])) + 1)
        radii.append(max(fewest - 1, 0))
    return torch.tensor(radii)
