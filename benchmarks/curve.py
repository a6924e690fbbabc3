"""The robustness curve over eight radii against one run of the attack at each radius."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import trained_network
from lightning_poison.attacks import PGD
from lightning_poison.attacks.robustness_curve import robustness_curve

__all__ = ["run"]

POINTS, TARGET = 512, 1 / 3
RADII = tuple(0.025 * number for number in range(1, 9))


class _Counted(nn.Module):
    """Counts the images whose gradient is asked for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.gradients = net, 0

    def forward(self, images: Tensor) -> Tensor:
        self.gradients += len(images) if images.requires_grad else 0
        scores: Tensor = self.net(images)
        return scores


def run() -> list[Row]:
    """PGD with 40 steps that stops a point once it is fooled, on both sides; gradients counted and seconds taken."""
    net, images, labels = trained_network()
    images, labels = images[:POINTS], labels[:POINTS]
    attack, counted = PGD(steps=40), _Counted(net).eval()
    broken = robustness_curve(attack, RADII, counted, images, labels).broken_at
    mine, counted.gradients = counted.gradients, 0
    fooled = torch.stack([replace(attack, eps=eps)(counted, images, labels).fooled for eps in RADII], dim=1)
    theirs = counted.gradients
    by_curve = broken[:, None] <= torch.arange(len(RADII))
    missed, more = int((fooled & ~by_curve).sum()), int((by_curve & ~fooled).sum())
    one, many = paired_seconds(
        lambda: robustness_curve(attack, RADII, net, images, labels),
        lambda: [replace(attack, eps=eps)(net, images, labels) for eps in RADII],
        rounds=3,
    )
    subject = f"curve, {len(RADII)} radii, PGD-40 (of {fooled.numel()} verdicts {missed} weaker, {more} stronger)"
    return [
        row("curve", f"gradients: {subject}", "a run at each radius", mine / theirs, TARGET),
        row("curve", f"seconds: {subject}", "a run at each radius", median_ratio(one, many), TARGET),
    ]
