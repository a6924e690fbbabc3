"""The order in which points are given may say what their labels are, as in folders sorted by class: it decides nothing.

Data hold points that equal each other and have different labels, which no order of the points themselves tells apart.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedRidge,
    ClusterVotes,
    HOGFeatures,
    KernelRidge,
    KernelSigns,
    KernelVotes,
    KMeansClusters,
    LabelFlipCertificate,
    LabelLinearLearner,
    MeanSimilarity,
    MonteCarloSmoothing,
    NearestCentroid,
    NearestNeighbours,
    PartitionAggregation,
    PCAFeatures,
    RandomConvFeatures,
    RandomFourierFeatures,
    RawFeatures,
    RBFKernel,
    SignedVotes,
    SklearnTraining,
    SmoothedRidge,
    SpectralClusters,
    SpectralFeatures,
)

CLASSES, COUNT = 3, 48
STREAM = torch.Generator().manual_seed(3)
TRUTH = torch.randint(CLASSES, (COUNT,), generator=STREAM)
IMAGES = torch.rand(COUNT, 1, 6, 6, generator=STREAM)
IMAGES[torch.arange(COUNT), 0, 2 * TRUTH, 3] += 2
IMAGES[40:] = IMAGES[[0, 0, 0, 1, 2, 2, 3, 4]]  # equal points, up to four of a kind, with labels of their own
VECTORS = IMAGES[:, 0].flatten(1)[:, 3::6].contiguous()
POINTS = torch.cat([IMAGES[:20], torch.rand(30, 1, 6, 6, generator=STREAM)])

RAW: dict[str, Callable[[], CertifiedLearner]] = {
    "ridge": lambda: CertifiedRidge(RawFeatures(), 0.2),
    "few directions": lambda: CertifiedRidge(RawFeatures(), 0.2, max_dim=2),
    "kernel ridge": lambda: KernelRidge(RawFeatures(), regularisation=0.05),
    "landmarks": lambda: KernelRidge(RawFeatures(), regularisation=0.05, landmarks=5),
    "kernel votes": lambda: KernelVotes(RawFeatures(), RBFKernel()),
    "neighbours": lambda: NearestNeighbours(RawFeatures(), 7, RBFKernel()),
    "one neighbour": lambda: NearestNeighbours(RawFeatures(), 1, RBFKernel()),
    "signs": lambda: KernelSigns(CertifiedRidge(RawFeatures(), 0.2, intercept=False)),
    "share": lambda: KernelSigns(KernelVotes(RawFeatures()), share=0.4),
    "k-means": lambda: ClusterVotes(RawFeatures(), KMeansClusters(4)),
    "spectral": lambda: SignedVotes(RawFeatures(), SpectralClusters(3, neighbours=3)),
    "together": lambda: SignedVotes(RawFeatures(), SpectralClusters(3, neighbours=3), transductive=True),
    "mean similarity": lambda: MeanSimilarity(RawFeatures(), RBFKernel()),
    "centroid": lambda: NearestCentroid(RawFeatures()),
    "smoothed": lambda: SmoothedRidge(RawFeatures(), 0.1),
    "parts by hash": lambda: PartitionAggregation(parts=9, features=RawFeatures()),
    "parts by order": lambda: PartitionAggregation(parts=9, dealing="order", features=RawFeatures()),
    "parts by cluster": lambda: PartitionAggregation(parts=9, dealing="clusters", features=RawFeatures()),
    "spread parts": lambda: PartitionAggregation(parts=5, spread=2, features=RawFeatures(), election="run_off"),
    "neighbours in parts": lambda: PartitionAggregation(
        NearestNeighbours(RawFeatures(), 3), parts=7, features=RawFeatures(), own_radii=False
    ),
    "scikit-learn": lambda: PartitionAggregation(
        SklearnTraining("sklearn.tree.DecisionTreeClassifier"), parts=6, features=RawFeatures()
    ),
    "Monte Carlo": lambda: MonteCarloSmoothing(CertifiedRidge(RawFeatures()), q=0.1, runs=20, alpha=0.1),
}
FEATURES: dict[str, Callable[[], Any]] = {
    "components": lambda: PCAFeatures(5),
    "convolutions": lambda: RandomConvFeatures(filters=12, patch_size=3),
    "histograms": lambda: HOGFeatures(dim=5),
    "Fourier": lambda: RandomFourierFeatures(RandomConvFeatures(filters=8, patch_size=3), dim=40),
    "graph": lambda: SpectralFeatures(PCAFeatures(5), dim=3, neighbours=4),
}
LEARNERS = [pytest.param(make, VECTORS, POINTS[:, 0].flatten(1)[:, 3::6], id=name) for name, make in RAW.items()] + [
    pytest.param(lambda make=make: KernelRidge(make(), regularisation=0.05, landmarks=20), IMAGES, POINTS, id=name)
    for name, make in FEATURES.items()
]


def certified(learner: CertifiedLearner, inputs: Any, labels: Tensor, points: Tensor) -> LabelFlipCertificate:
    return learner.fit(inputs, labels, CLASSES).certify(points)


def in_folders(labels: Tensor) -> Tensor:
    """The order of files that lie in one folder a class, sorted by name within."""
    return labels.argsort(stable=True)


@pytest.mark.parametrize(("make", "inputs", "points"), LEARNERS)
def test_points_in_another_order_give_the_same_learner(
    make: Callable[[], CertifiedLearner], inputs: Tensor, points: Tensor
) -> None:
    expected = certified(make(), inputs, TRUTH, points)
    orders = [in_folders(TRUTH), torch.arange(COUNT).flip(0), torch.randperm(COUNT, generator=STREAM)]
    for order in orders:
        for shuffled in (inputs[order], inputs[order].split(7)):
            found = certified(make(), shuffled, TRUTH[order], points)
            assert torch.equal(found.prediction, expected.prediction)
            assert torch.equal(found.radius, expected.radius)


@pytest.mark.parametrize(("make", "inputs", "points"), LEARNERS)
def test_a_file_that_is_moved_to_another_class_is_one_changed_label(
    make: Callable[[], CertifiedLearner], inputs: Tensor, points: Tensor
) -> None:
    order = in_folders(TRUTH)
    before = certified(make(), inputs[order], TRUTH[order], points)
    if make is not RAW["Monte Carlo"] and make is not RAW["one neighbour"]:
        assert (before.radius >= 1).any()
    for moved in (0, 2, 40, 44, 30):
        labels = TRUTH.clone()
        labels[moved] = (labels[moved] + 1 + moved % 2) % CLASSES
        order = in_folders(labels)
        after = certified(make(), inputs[order], labels[order], points)
        kept = before.radius >= 1
        assert torch.equal(after.prediction[kept], before.prediction[kept])


@pytest.mark.parametrize("name", [name for name, make in RAW.items() if isinstance(make(), LabelLinearLearner)])
def test_weights_and_attacks_tell_of_points_as_they_were_given(name: str) -> None:
    order = torch.randperm(COUNT, generator=STREAM)
    points = POINTS[20:, 0].flatten(1)[:, 3::6]
    learner = RAW[name]().fit(VECTORS[order], TRUTH[order], CLASSES)
    assert isinstance(learner, LabelLinearLearner)
    features = learner.transform(points)
    certificate = learner.certify_features(features)
    scores = learner.weights(features).double() @ torch.nn.functional.one_hot(TRUTH[order], CLASSES).double()
    assert (scores.gather(1, certificate.prediction[:, None])[:, 0] >= scores.amax(1) - 1e-9).all()
    assert torch.equal(learner.labels, TRUTH[order][learner.order])
    for row, flips in list(enumerate(learner.optimal_flips(features)))[:4]:
        if flips is not None:
            assert torch.equal(flips.old_label, TRUTH[order][flips.index])
            assert len(flips) >= int(certificate.radius[row]) + 1
    together = learner.certify_together(features, 3)
    assert (together.new_label != TRUTH[order][together.index]).all()
    assert torch.equal(together.index, together.index.sort().values)


def test_equal_points_weigh_alike_and_stay_in_one_part() -> None:
    for make in RAW.values():
        learner = make().fit(VECTORS, TRUTH, CLASSES)
        if isinstance(learner, LabelLinearLearner) and not isinstance(learner, NearestNeighbours):
            weights = learner.weights(learner.transform(POINTS[:, 0].flatten(1)[:, 3::6]))
            assert torch.equal(weights[:, [40, 41, 42, 43, 44, 45]], weights[:, [0, 0, 0, 1, 2, 2]])
        if isinstance(learner, PartitionAggregation):
            part = learner._part_of[learner.order.argsort()]
            assert torch.equal(part[[40, 41, 42, 43, 44, 45]], part[[0, 0, 0, 1, 2, 2]])
            assert learner._part_of.bincount().min() > 0


def test_parts_of_few_different_points_are_as_many_as_these() -> None:
    inputs = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    learner = PartitionAggregation(parts=7, features=RawFeatures()).fit(inputs, torch.arange(20) % 2, 2)
    assert "plurality vote of 2 learners" in learner.describe()
    assert learner.certify(torch.tensor([[0.0]])).radius.tolist() == [
        4
    ]  # five changed labels make its ten points vote otherwise
