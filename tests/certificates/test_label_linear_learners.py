"""Kernel learners, neighbours and signs: their scores against peers, their certificates against refits."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from sklearn.neighbors import KNeighborsClassifier

from lightning_poison.certificates import (
    CertifiedRidge,
    CosineKernel,
    KernelRidge,
    KernelSigns,
    KernelVotes,
    LabelLinearLearner,
    NearestNeighbours,
    RawFeatures,
    RBFKernel,
)
from lightning_poison.certificates.learners.kernel_learners import signs
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator

DIGITS = torch.tensor(load_digits().data / 16)
LABELS = torch.tensor(load_digits().target)
RAW = RawFeatures()


def learners() -> list[LabelLinearLearner]:
    return [
        KernelRidge(RAW, RBFKernel(1.5), 0.05),
        KernelRidge(RAW, CosineKernel(), 0.05, landmarks=4),
        KernelVotes(RAW, CosineKernel(centre=True)),
        KernelVotes(RAW, RBFKernel()),
        NearestNeighbours(RAW, 3),
        NearestNeighbours(RAW, 4, RBFKernel()),
        KernelSigns(CertifiedRidge(RAW, intercept=False)),
        KernelSigns(KernelVotes(RAW), share=0.4),
    ]


NAMES = [learner.describe() for learner in learners()]


@pytest.mark.parametrize("which", range(len(NAMES)), ids=NAMES)
def test_refitted_to_every_relabelling_it_keeps_its_prediction_within_the_radius(which: int) -> None:
    """The learner itself, from the inputs on, is trained again on all 3^6 labels."""
    stream = generator(which, "every relabelling")
    inputs = torch.randn(6, 3, generator=stream)
    labels = torch.randint(3, (6,), generator=stream)
    points = torch.cat([inputs[:2], torch.randn(3, 3, generator=stream)])
    certificate = learners()[which].fit(inputs, labels, 3).certify(points)
    again = learners()[which].fit(inputs, labels, 3)
    fewest = torch.full((5,), 7)
    for other in product(range(3), repeat=6):
        changed = torch.tensor(other)
        prediction = again.fit_features(again.transform(inputs), changed, 3).certify(points).prediction
        changes = int((changed != labels).sum())
        moved = prediction != certificate.prediction
        assert not (moved & (certificate.radius >= changes)).any()
        fewest[moved] = fewest[moved].clamp(max=changes)
    tight = int((fewest == certificate.radius + 1).sum())
    assert tight >= 1


@pytest.mark.parametrize("which", range(len(NAMES)), ids=NAMES)
def test_the_optimal_flips_break_a_refitted_learner_and_one_less_does_not(which: int) -> None:
    inputs, labels, points = DIGITS[:300], LABELS[:300], DIGITS[300:306]
    learner = learners()[which].fit(inputs, labels, 10)
    certificate = learner.certify(points)
    for row, flips in enumerate(learner.optimal_flips(points)):
        assert flips is not None
        assert len(flips) >= int(certificate.radius[row]) + 1
        again = learners()[which].fit(inputs, flips.apply(labels), 10).certify(points[row : row + 1])
        assert again.prediction.item() == flips.new_prediction != flips.prediction
        fewer = flips.apply(labels)
        spared = flips.index[: len(flips) - int(certificate.radius[row])]
        fewer[spared] = labels[spared]
        assert learners()[which].fit(inputs, fewer, 10).certify(points[row : row + 1]).prediction == flips.prediction


def test_kernels_equal_scikit_learn() -> None:
    one, two = DIGITS[:20], DIGITS[20:50].clone()
    two[3] = 0
    assert torch.allclose(CosineKernel().matrix(one, two), torch.tensor(cosine_similarity(one, two)), atol=1e-14)
    assert torch.allclose(RBFKernel(0.7).matrix(one, two), torch.tensor(rbf_kernel(one, two, 1 / (2 * 0.7**2))))
    centred = CosineKernel(centre=True)
    centred.fit(one)
    mean = one.mean(0)
    assert torch.allclose(centred.matrix(one, two), torch.tensor(cosine_similarity(one - mean, two - mean)), atol=1e-13)


def test_the_bandwidth_is_the_median_distance() -> None:
    kernel = RBFKernel()
    kernel.fit(torch.tensor([[0.0], [1.0], [3.0]]))  # distances 1, 2, 3
    assert torch.allclose(kernel.matrix(torch.zeros(1, 1), torch.full((1, 1), 2.0)), torch.tensor(-0.5).double().exp())
    kernel.fit(torch.zeros(5, 2))  # duplicates alone
    assert kernel.matrix(torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [[1.0]]


@pytest.mark.parametrize("kernel", ["rbf", "cosine"])
def test_kernel_ridge_equals_scikit_learn(kernel: str) -> None:
    mine = RBFKernel(1.3) if kernel == "rbf" else CosineKernel()
    learner = KernelRidge(RAW, mine, 0.02).fit(DIGITS[:200], LABELS[:200], 10)
    one_hot = np.eye(10)[LABELS[:200]]
    peer = SklearnKernelRidge(alpha=0.02 * 200, kernel=kernel, gamma=1 / (2 * 1.3**2) if kernel == "rbf" else None)
    expected = peer.fit(DIGITS[:200], one_hot).predict(DIGITS[200:260])
    scores = learner.weights(DIGITS[200:260]) @ torch.tensor(one_hot)
    assert torch.allclose(scores, torch.tensor(expected), atol=1e-10)


def test_landmarks_that_are_all_points_change_nothing_and_few_keep_what_matters() -> None:
    exact = KernelRidge(RAW, RBFKernel(2.0), 0.02).fit(DIGITS[:400], LABELS[:400], 10)
    nystrom = KernelRidge(RAW, RBFKernel(2.0), 0.02, landmarks=399).fit(DIGITS[:400], LABELS[:400], 10)
    few = KernelRidge(RAW, RBFKernel(2.0), 0.02, landmarks=80).fit(DIGITS[:400], LABELS[:400], 10)
    points = DIGITS[400:600]
    one_hot = torch.eye(10, dtype=torch.float64)[LABELS[:400]]
    assert torch.allclose(nystrom.weights(points) @ one_hot, exact.weights(points) @ one_hot, atol=5e-3)
    assert (few.certify(points).prediction == exact.certify(points).prediction).double().mean() > 0.9
    assert few.describe().endswith("80 landmarks)")


def test_neighbours_equal_scikit_learn() -> None:
    inputs = DIGITS[:700] + 1e-3 * torch.randn(700, 64, generator=generator(0), dtype=torch.float64)  # no ties
    learner = NearestNeighbours(RAW, 7, RBFKernel()).fit(inputs[:500], LABELS[:500], 10)
    peer = KNeighborsClassifier(7).fit(inputs[:500], LABELS[:500])
    chosen = learner.weights(inputs[500:]).nonzero()[:, 1].reshape(200, 7)
    np.testing.assert_array_equal(chosen, np.sort(peer.kneighbors(inputs[500:], return_distance=False)))
    np.testing.assert_array_equal(learner.certify(inputs[500:]).prediction, peer.predict(inputs[500:]))


def test_of_duplicates_the_first_are_neighbours() -> None:
    inputs = torch.tensor([[1.0], [1.0], [1.0], [2.0], [1.0]])
    learner = NearestNeighbours(RAW, 2, RBFKernel(1.0)).fit(inputs, torch.tensor([0, 1, 1, 1, 1]), 2)
    assert learner.weights(torch.tensor([[1.0], [2.0]])).tolist() == [[1, 1, 0, 0, 0], [1, 0, 0, 1, 0]]
    everyone = NearestNeighbours(RAW, 99).fit(inputs, torch.tensor([0, 1, 1, 1, 1]), 2)
    assert everyone.certify(inputs[:1]).radius.tolist() == [1]


def test_signs_leave_out_rounding_errors_and_equal_weights_vote_alike() -> None:
    assert signs(torch.tensor([[0.0, 0.0]])).tolist() == [[0, 0]]
    assert signs(torch.tensor([[3.0, -1e-12, 1e-3, -4.0]])).tolist() == [[1, 0, 1, -1]]
    assert signs(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), share=0.5).tolist() == [[1, 1, 1, -1]]
    assert signs(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), share=0.0).tolist() == [[1, -1, -1, -1]]
    assert signs(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), share=1.0).tolist() == [[1, 1, 1, 1]]
    with pytest.raises(UserError, match="weights must be finite"):
        signs(torch.tensor([[float("nan"), 1.0]]))


def test_signs_certify_more_than_the_weights_that_they_come_from() -> None:
    inputs, labels = DIGITS[:1000], LABELS[:1000]
    weighted = CertifiedRidge(RAW, 1.0, intercept=False)
    certificates = [
        learner.fit(inputs, labels, 10).certify(DIGITS[1000:])
        for learner in (weighted, KernelSigns(CertifiedRidge(RAW, 1.0, intercept=False), share=0.1))
    ]
    for certificate in certificates:
        assert (certificate.prediction == LABELS[1000:]).double().mean() > 0.8
    assert certificates[1].radius.double().mean() > 1.5 * certificates[0].radius.double().mean()


@pytest.mark.parametrize("which", range(len(NAMES)), ids=NAMES)
def test_extremes(which: int) -> None:
    """One point, one class, duplicates, features that are all zero: a sound radius or a clear error."""
    one = learners()[which].fit(torch.ones(1, 2), torch.tensor([1]), 2).certify(torch.ones(3, 2))
    assert (one.radius == 0).all()
    single = learners()[which].fit(torch.randn(5, 2, generator=generator(0)), torch.zeros(5, dtype=torch.int64), 1)
    assert single.certify(torch.zeros(1, 2)).radius.tolist() == [5]
    zeros = learners()[which].fit(torch.zeros(6, 2), torch.tensor([0, 0, 0, 0, 1, 1]), 2)
    certificate = zeros.certify(torch.zeros(2, 2))
    assert (certificate.radius <= 1).all()  # two changes make the labels level
    assert len(zeros.certify(torch.zeros(0, 2))) == 0
    for bad in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="finite"):
            zeros.certify(torch.tensor([[bad, 1.0]]))
        with pytest.raises(UserError, match="finite"):
            learners()[which].fit(torch.tensor([[bad, 1.0], [0.0, 1.0]]), torch.tensor([0, 1]), 2)


def test_errors_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="bandwidth must be larger than 0"):
        RBFKernel(0.0)
    with pytest.raises(UserError, match="neighbours must be an integer of at least 1"):
        NearestNeighbours(RAW, 0)
    with pytest.raises(UserError, match="share must lie in"):
        KernelSigns(KernelVotes(RAW), share=2.0)
    with pytest.raises(UserError, match="regularisation must be larger for this kernel"):
        KernelRidge(RAW, CosineKernel(), 0.0).fit(torch.ones(3, 2), torch.tensor([0, 1, 1]), 2)
    with pytest.raises(UserError, match="RBFKernel must be fitted"):
        RBFKernel().matrix(torch.ones(1, 1), torch.ones(1, 1))


def test_the_guarantee_names_learner_and_assumptions() -> None:
    learner = KernelSigns(KernelRidge(RAW, RBFKernel(), 0.1), share=0.1).fit(DIGITS[:50], LABELS[:50], 10)
    text = learner.guarantee()
    assert "largest 10.0% of the weights of kernel ridge regression (RBF kernel" in text
    assert "the kernel, the strength and the share were fixed without these training labels" in text
    assert "the number of neighbours" in NearestNeighbours(RAW).choices()
    assert "cosine" in KernelVotes(RAW).describe()
