"""Selectors by path length and by influence against the passes through the network that they cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import NETWORKS, banded_images, trained_network
from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.attacks.engine import usual_chunk
from lightning_poison.attacks.model import batch_layout
from lightning_poison.functional.softmax_regression import SoftmaxRegression
from lightning_poison.poisons import Candidates, InfluenceScore, LabelFlips, NextClass, PathLengthBucket, TrainingSet
from lightning_poison.poisons.surrogates.trained import LastLayer

__all__ = ["run"]

POINTS, ALL, SOLVES = 1000, 60_000, 10


def run() -> list[Row]:
    """Path lengths, a sweep of buckets, influence of all candidates; seconds stand in the subject."""
    rows = [_lengths(kind) for kind in NETWORKS]
    return [*rows, _sweep("StrideCNN"), _last_layer(), _network()]


def _lengths(kind: str) -> Row:
    data = _training_set(kind)
    gradients = int(_walked(data).sum()) + data.num_points
    selector = PathLengthBucket(per_class=10)
    ours, bare = paired_seconds(
        lambda: LabelFlips(selector).craft(_training_set(kind), seed=0),
        lambda: _gradients(data, gradients),
        rounds=2,
    )
    seconds = min(ours) * ALL / data.num_points
    subject = f"{kind}, PathLengthBucket ({ALL} points: {seconds:.0f} s)"
    return row("flips_paths", subject, "the engine's forward and backward per look", median_ratio(ours, bare), 1 / 0.9)


def _sweep(kind: str) -> Row:
    buckets = list(PathLengthBucket.sweep(6, per_class=10).values())

    def craft(selectors: list[PathLengthBucket]) -> None:
        data = _training_set(kind)
        for selector in selectors:
            LabelFlips(selector).craft(data, seed=0)

    all_six, one = paired_seconds(lambda: craft(buckets), lambda: craft(buckets[:1]), rounds=2)
    return row("flips_paths", f"{kind}, six buckets", "one bucket", median_ratio(all_six, one), 1.1)


def _last_layer() -> Row:
    data = _training_set("StrideCNN")
    selector = InfluenceScore(per_class=10)
    (ours,) = paired_seconds(lambda: LabelFlips(selector).craft(_training_set("StrideCNN"), seed=0), rounds=2)
    network = data.network
    assert network is not None
    features = LastLayer(network).features(data.inputs).double()
    model = SoftmaxRegression(features, data.labels, 10, strength=0.01 * float(features.square().mean()))
    single = _seconds(lambda: [model.solve(_flip(features, data.labels, point)) for point in range(SOLVES)]) / SOLVES
    subject = f"InfluenceScore, last layer, {data.num_points} candidates ({min(ours):.2f} s)"
    return row("flips_paths", subject, "a solve for every candidate", min(ours) / (single * data.num_points), 0.1)


def _network() -> Row:
    data = _training_set("StrideCNN")
    selector = InfluenceScore(per_class=10, weights="network")
    candidates = Candidates.of(data, NextClass(), 0)
    (ours,) = paired_seconds(lambda: selector.influence(candidates, candidates.index, 0), rounds=1, warmup=0)
    # What no way around: a hundred products, each at least a pass forward and one backward over all points.
    bare = _seconds(lambda: _weight_gradients(data)) * 100
    subject = f"InfluenceScore, network, {data.num_points} candidates ({min(ours):.0f} s)"
    return row("flips_paths", subject, "100 passes forward and backward", min(ours) / bare, 3.0)


def _training_set(kind: str) -> TrainingSet:
    """Fresh, so that nothing is remembered."""
    net, images, labels = _subject(kind)
    return TrainingSet(labels, 10, dataset=TensorDataset(images, labels), network=net)


@cache
def _subject(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    net, images, labels = trained_network(kind)
    if len(images) < POINTS:
        images, labels = banded_images(POINTS, seed=1)
    return net, images[:POINTS], labels[:POINTS]


def _walked(data: TrainingSet) -> Tensor:
    candidates = Candidates.of(data, NextClass(), 0)
    return PathLengthBucket().distances(candidates, candidates.index, 0).length


def _gradients(data: TrainingSet, count: int) -> None:
    """So many input gradients in full batches, as the engine lays them out."""
    network = data.network
    assert network is not None
    images, targets = data.inputs, (data.labels + 1) % 10
    size = usual_chunk(images)
    with frozen_eval(network):
        layout = batch_layout(network, images)
        for _ in range(-(-count // size)):
            points = layout(images[:size].detach()).requires_grad_()
            torch.autograd.grad(cross_entropy(class_scores(network, points), targets[:size], reduction="sum"), points)


def _weight_gradients(data: TrainingSet) -> None:
    network = data.network
    assert network is not None
    weights = [weight.requires_grad_(True) for weight in network.parameters()]
    for rows in torch.arange(data.num_points).split(500):
        torch.autograd.grad(cross_entropy(network(data.inputs[rows]), data.labels[rows]), weights)


def _flip(features: Tensor, labels: Tensor, point: int) -> Tensor:
    """What the flip of one point adds to the gradient of the last layer."""
    change = torch.zeros(10, features.shape[1], dtype=torch.float64)
    change[labels[point]] += features[point]
    change[(labels[point] + 1) % 10] -= features[point]
    return change


def _seconds(job: Callable[[], object]) -> float:
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun
