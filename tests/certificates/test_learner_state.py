"""What a learner was fitted to stays what it was: nothing that happens to its arguments afterwards moves it."""

from collections.abc import Callable

import pytest
import torch

from lightning_poison.certificates import (
    CertifiedRidge,
    PCAFeatures,
    RandomFourierFeatures,
    RawFeatures,
    SpectralFeatures,
)
from lightning_poison.certificates.learner import CertifiedLearner
from lightning_poison.certificates.learners import (
    CosineKernel,
    KernelRidge,
    KernelSigns,
    KernelVotes,
    MeanSimilarity,
    NearestCentroid,
    NearestNeighbours,
    RBFKernel,
    SignedVotes,
)
from lightning_poison.certificates.learners.clusters import KMeansClusters
from lightning_poison.certificates.partitions import PartitionAggregation
from lightning_poison.certificates.smoothing import SmoothedRidge
from lightning_poison.errors import UserError

INPUTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) + 1.5 * (torch.arange(40) < 20)[:, None]
LABELS = torch.arange(40) // 20
POINTS = torch.randn(6, 2, generator=torch.Generator().manual_seed(1)) + 0.7

LEARNERS: list[Callable[[], CertifiedLearner]] = [
    lambda: CertifiedRidge(RawFeatures()),
    lambda: NearestCentroid(RawFeatures()),
    lambda: SmoothedRidge(RawFeatures()),
    lambda: SignedVotes(RawFeatures(), KMeansClusters(2)),
    lambda: PartitionAggregation(parts=5, features=RawFeatures()),
    lambda: KernelSigns(CertifiedRidge(RawFeatures(), intercept=False)),
]


def certified(learner: CertifiedLearner) -> list[list[int]]:
    certificate = learner.certify(POINTS)
    return [certificate.prediction.tolist(), certificate.radius.tolist()]


@pytest.mark.parametrize("make", LEARNERS)
def test_labels_that_are_flipped_in_place_after_the_fit_are_not_the_fitted_ones(
    make: Callable[[], CertifiedLearner],
) -> None:
    labels = LABELS.clone()
    learner = make().fit(INPUTS, labels, 2)
    labels[:] = 1 - labels
    assert certified(learner) == certified(make().fit(INPUTS, LABELS, 2))


@pytest.mark.parametrize("kind", [KernelVotes, KernelRidge, NearestNeighbours, MeanSimilarity])
@pytest.mark.parametrize("kernel", [RBFKernel(), CosineKernel(centre=True)])
def test_learners_that_were_given_one_kernel_do_not_refit_each_others(
    kind: type[KernelVotes], kernel: RBFKernel | CosineKernel
) -> None:
    learner = kind(RawFeatures(), kernel=kernel).fit(INPUTS, LABELS, 2)
    before = certified(learner)
    kind(RawFeatures(), kernel=kernel).fit(100 * INPUTS + 50, LABELS, 2)
    assert certified(learner) == before


@pytest.mark.parametrize(
    "method", [CertifiedRidge(RawFeatures(), intercept=False), KernelVotes(RawFeatures(), CosineKernel(centre=True))]
)
def test_fitting_the_method_of_signs_again_does_not_move_them(method: CertifiedRidge | KernelVotes) -> None:
    learner = KernelSigns(method).fit(INPUTS, LABELS, 2)
    before = certified(learner)
    method.fit(INPUTS + 3, LABELS, 2)
    assert certified(learner) == before


@pytest.mark.parametrize("transductive", [False, True])
def test_features_that_are_changed_in_place_are_divided_again(transductive: bool) -> None:
    learner = SignedVotes(RawFeatures(), KMeansClusters(2), transductive)
    features, points = INPUTS.clone(), POINTS.clone()
    learner.fit_features(features, LABELS, 2).certify_features(points)
    points.add_(INPUTS[20:26]).mul_(-3)
    fresh = SignedVotes(RawFeatures(), KMeansClusters(2), transductive).fit_features(INPUTS, LABELS, 2)
    assert torch.equal(learner.certify_features(points).prediction, fresh.certify_features(points).prediction)
    features.copy_(INPUTS.flip(0) * torch.tensor([1.0, -4.0]))
    learner.fit_features(features, LABELS, 2)
    fresh.fit_features(features.clone(), LABELS, 2)
    assert torch.equal(learner.certify(POINTS).prediction, fresh.certify(POINTS).prediction)
    assert torch.equal(learner.certify(POINTS).radius, fresh.certify(POINTS).radius)


def test_a_fit_that_breaks_off_leaves_no_mixture_of_two_fits() -> None:
    learner = CertifiedRidge(PCAFeatures(1)).fit(INPUTS, LABELS, 2)

    def break_off(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.fit(INPUTS.flip(1) + 7, LABELS, 2, break_off)
    with pytest.raises(UserError, match="must be fitted"):
        learner.certify(POINTS)


@pytest.mark.parametrize("make", LEARNERS)
def test_points_of_another_width_are_refused(make: Callable[[], CertifiedLearner]) -> None:
    learner = make().fit(INPUTS, LABELS, 2)
    with pytest.raises(UserError, match=r"same shape as the training points, got \(3,\) for \(2,\)"):
        learner.certify(torch.zeros(4, 3))


@pytest.mark.parametrize("make", LEARNERS)
def test_arrays_and_lists_are_taken_as_tensors_are(make: Callable[[], CertifiedLearner]) -> None:
    expected = make().fit(INPUTS, LABELS, 2).certify(POINTS)
    for labels in (LABELS.numpy(), LABELS.tolist(), LABELS.numpy().astype("uint16"), LABELS.to(torch.int8)):
        found = make().fit(INPUTS.numpy(), labels, 2).certify(POINTS.numpy())  # type: ignore[arg-type]
        assert torch.equal(found.prediction, expected.prediction)
        assert torch.equal(found.radius, expected.radius)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: CertifiedRidge(RawFeatures),
            "features must be a LabelFreeFeatures such as RawFeatures.., got the class",
        ),
        (lambda: KernelRidge(kernel=3), "kernel must be a Kernel such as RBFKernel.., got 3"),
        (lambda: KernelVotes(kernel="rbf"), "kernel must be a Kernel such as CosineKernel.., got 'rbf'"),
        (lambda: SignedVotes(clusters=3), "clusters must be a Clusters such as KMeansClusters.3., got 3"),
        (lambda: KernelSigns(NearestCentroid()), "method must be a LabelLinearLearner such as CertifiedRidge"),
        (lambda: RandomFourierFeatures(5), "features must be a LabelFreeFeatures such as"),
        (lambda: SpectralFeatures("raw"), "features must be a LabelFreeFeatures such as"),
        (
            lambda: CertifiedRidge(RawFeatures()).fit(7, [0, 1], 2),
            "inputs must be points or batches of points, got int",
        ),
    ],
)
def test_wrong_kinds_are_one_clear_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
