"""Adversarial paths against the thesis's loop over points and against the bare forward and backward passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import trained_network
from lightning_poison.attacks import adversarial_paths

__all__ = ["run"]

POINTS, LOOP_POINTS, CHUNK, STEP, LIMIT = 1000, 40, 256, 0.01, 200


def run() -> list[Row]:
    """Path lengths to the next class, identical to those of the loop."""
    net, images, labels = trained_network()
    targets = (labels + 1) % 10
    ours = adversarial_paths(net, images[:LOOP_POINTS], labels[:LOOP_POINTS], targets[:LOOP_POINTS])
    loop = _loop(net, images[:LOOP_POINTS], targets[:LOOP_POINTS])
    if ours.length.tolist() != loop:
        raise RuntimeError("the engine and the loop disagree about the path lengths")
    gradients = int(
        adversarial_paths(net, images[:POINTS], labels[:POINTS], targets[:POINTS], max_steps=LIMIT).length.sum()
    )
    engine, by_point, raw = paired_seconds(
        lambda: adversarial_paths(net, images[:POINTS], labels[:POINTS], targets[:POINTS], chunk_size=CHUNK),
        lambda: _loop(net, images[:LOOP_POINTS], targets[:LOOP_POINTS]),
        lambda: _raw(net, images[:CHUNK], targets[:CHUNK], gradients),
    )
    # The loop walks fewer points; what is compared is the time of a step.
    scaled = [seconds * gradients / sum(loop) for seconds in by_point]
    return [
        row("paths", "adversarial_paths", "the thesis's loop over points", median_ratio(engine, scaled), 1 / 12),
        row("paths", "adversarial_paths", "forward and backward per gradient", median_ratio(engine, raw), 1 / 0.9),
    ]


def _loop(net: nn.Module, images: Tensor, targets: Tensor) -> list[int]:
    """Algorithm 2 as the thesis writes it: one point at a time, one pass to step and one to look."""
    lengths = []
    for start, target in zip(images, targets, strict=True):
        point, length = start[None], 0
        while length < LIMIT and int(net(point).argmax()) != int(target):
            point = point.detach().requires_grad_()
            loss = cross_entropy(net(point), target[None])
            loss.backward()
            gradient = point.grad
            assert gradient is not None
            point = point.detach() - STEP * gradient.sign()
            length += 1
        lengths.append(length)
    return lengths


def _raw(net: nn.Module, images: Tensor, targets: Tensor, gradients: int) -> None:
    """As many input gradients as the paths have steps, in full batches, and nothing else."""
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    for _ in range(-(-gradients // len(images))):
        points = images.requires_grad_()
        torch.autograd.grad(cross_entropy(net(points), targets, reduction="sum"), points)
    for parameter in net.parameters():
        parameter.requires_grad_(True)
