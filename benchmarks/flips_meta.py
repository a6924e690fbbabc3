"""Medoids and MetaFlips on 10,000 points, and the tangent kernel against the one that keeps whole gradients."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils.data import TensorDataset

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import banded_images
from lightning_poison.functional.tangents import tangent_kernel, tangents
from lightning_poison.nets import StrideCNN
from lightning_poison.poisons import LabelFlips, Medoids, MetaFlips, TrainingSet

__all__ = ["run"]

POINTS, KERNEL_POINTS, MINUTES = 10_000, 600, 4.0  # two minutes on two cores


def run() -> list[Row]:
    """Processor seconds of each strategy against the minutes it may take, and the kernel against whole gradients."""
    images, labels = banded_images(POINTS, seed=0)
    data = TrainingSet(labels % 2, 2, dataset=TensorDataset(images, labels % 2))
    rows = []
    for select in (Medoids(per_class=10), MetaFlips(per_class=10)):
        begun = time.process_time()
        LabelFlips(select).craft(data, seed=0)
        seconds = time.process_time() - begun
        subject = f"{type(select).__name__}, {POINTS} points, 20 flips ({seconds:.0f} s of processor time)"
        rows.append(row("flips_meta", subject, "two cores for two minutes", seconds / (60 * MINUTES), 1.0))
    return [*rows, _kernel(images[:KERNEL_POINTS])]


def _kernel(images: Tensor) -> Row:
    network = StrideCNN(2).eval()
    mine, naive = paired_seconds(
        lambda: tangent_kernel(images, images, partial(tangents, network, output=_difference)),
        lambda: _explicit(network, images),
        rounds=3,
    )
    subject = f"tangent kernel of {KERNEL_POINTS} points, StrideCNN, gradients in factors"
    return row("flips_meta", subject, "whole gradients by torch.func", median_ratio(mine, naive), 0.25)


def _difference(scores: Tensor) -> Tensor:
    return scores[:, 0] - scores[:, 1]


def _explicit(network: StrideCNN, images: Tensor) -> Tensor:
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    def value(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return _difference(functional_call(network, weights, (image[None],)))[0]

    parts = [vmap(grad(value), in_dims=(None, 0))(weights, part) for part in torch.split(images, 200)]
    rows = torch.cat([torch.cat([slope.flatten(1) for slope in part.values()], dim=1) for part in parts])
    return rows @ rows.T
