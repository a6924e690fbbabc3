"""Adversarial paths against the thesis's loop over points and against the bare forward and backward passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import NETWORKS, trained_network
from lightning_poison.attacks import adversarial_paths, class_scores, frozen_eval
from lightning_poison.attacks.engine import usual_chunk
from lightning_poison.attacks.model import batch_layout

__all__ = ["run"]

POINTS, LOOP_POINTS, STEP, LIMIT = 2000, 40, 0.01, 200


def run() -> list[Row]:
    """Path lengths to the next class, identical to those of the loop."""
    return [row for kind in NETWORKS for row in _rows(kind)]


def _rows(kind: str) -> list[Row]:
    net, images, labels = trained_network(kind)
    targets = (labels + 1) % 10
    ours = adversarial_paths(net, images[:LOOP_POINTS], labels[:LOOP_POINTS], targets[:LOOP_POINTS])
    loop = _loop(net, images[:LOOP_POINTS], targets[:LOOP_POINTS])
    if ours.length.tolist() != loop:
        raise RuntimeError("the engine and the loop disagree about the path lengths")
    gradients = int(
        adversarial_paths(net, images[:POINTS], labels[:POINTS], targets[:POINTS], max_steps=LIMIT).length.sum()
    )
    engine, by_point, plain, same = paired_seconds(
        lambda: adversarial_paths(net, images[:POINTS], labels[:POINTS], targets[:POINTS]),
        lambda: _loop(net, images[:LOOP_POINTS], targets[:LOOP_POINTS]),
        lambda: _plain_gradients(net, images, targets, gradients),
        lambda: _same_gradients(net, images, targets, gradients + POINTS),
        rounds=3,
    )
    # The loop walks fewer points; what is compared is the time of a step.
    scaled = [seconds * gradients / sum(loop) for seconds in by_point]
    subject = f"{kind}, adversarial_paths"
    return [
        row("paths", subject, "the thesis's loop over points", median_ratio(engine, scaled), 1 / 12),
        row(
            "paths", subject, "forward and backward per step, as PyTorch does it", median_ratio(engine, plain), 1 / 0.9
        ),
        row("paths", subject, "the engine's forward and backward per look", median_ratio(engine, same), 1 / 0.9),
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


def _plain_gradients(net: nn.Module, images: Tensor, targets: Tensor, count: int) -> None:
    """So many input gradients in full batches, weights frozen, and nothing else."""
    size = usual_chunk(images)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    for _ in range(-(-count // size)):
        points = images[:size].detach().requires_grad_()
        torch.autograd.grad(cross_entropy(net(points), targets[:size], reduction="sum"), points)
    for parameter in net.parameters():
        parameter.requires_grad_(True)


def _same_gradients(net: nn.Module, images: Tensor, targets: Tensor, count: int) -> None:
    """The same in the memory layout and with the first layer that the engine uses: what bookkeeping costs."""
    size = usual_chunk(images)
    with frozen_eval(net):
        layout = batch_layout(net, images)
        for _ in range(-(-count // size)):
            points = layout(images[:size].detach()).requires_grad_()
            torch.autograd.grad(cross_entropy(class_scores(net, points), targets[:size], reduction="sum"), points)
