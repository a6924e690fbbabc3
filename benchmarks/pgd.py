"""PGD with 40 steps against torchattacks, at identical adversarial accuracy."""

from __future__ import annotations

import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import trained_network
from lightning_poison.attacks import PGD

__all__ = ["run"]

POINTS, BATCH, STEPS = 512, 128, 40
TARGETS = {0.1: 1 / 2.5, 0.2: 1 / 4}


def run() -> list[Row]:
    """Cross-entropy from the clean image on both sides; ours stops a point once it is fooled."""
    net, images, labels = trained_network()
    images, labels = images[:POINTS], labels[:POINTS]
    rows = []
    for eps, target in TARGETS.items():
        ours = PGD(eps=eps, steps=STEPS, losses=("cross_entropy",))
        theirs = torchattacks.PGD(net, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS, random_start=False)
        mine = 1 - float(torch.cat([ours(net, *part).fooled for part in _batches(images, labels)]).double().mean())
        other = _accuracy(net, theirs, images, labels)
        engine, peer = paired_seconds(
            lambda attack=ours: [attack(net, *part) for part in _batches(images, labels)],
            lambda attack=theirs: [attack(*part) for part in _batches(images, labels)],
        )
        subject = f"PGD-{STEPS}, eps {eps}, early exit (adversarial accuracy {mine:.4f})"
        rows.append(row("pgd", subject, f"torchattacks.PGD ({other:.4f})", median_ratio(engine, peer), target))
    return rows


def _batches(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def _accuracy(net: nn.Module, attack: torchattacks.PGD, images: Tensor, labels: Tensor) -> float:
    right = [net(attack(*part)).argmax(1) == part[1] for part in _batches(images, labels)]
    return float(torch.cat(right).double().mean())
