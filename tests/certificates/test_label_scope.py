"""Which labels an adversary may write: the declared classes, those that were counted, or any label at all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedRidge,
    ClusterVotes,
    HOGFeatures,
    KernelSigns,
    KMeansClusters,
    MeanSimilarity,
    NearestCentroid,
    NearestNeighbours,
    PartitionAggregation,
    RawFeatures,
    RBFKernel,
    SignedVotes,
    SmoothedRidge,
    radius_ceiling,
)
from lightning_poison.errors import UserError

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)

LEARNERS: dict[str, Callable[[], CertifiedLearner]] = {
    "ridge": lambda: CertifiedRidge(RawFeatures(), 0.5),
    "signs": lambda: KernelSigns(CertifiedRidge(RawFeatures(), 0.5, intercept=False)),
    "neighbours": lambda: NearestNeighbours(RawFeatures(), 5, RBFKernel()),
    "clusters": lambda: ClusterVotes(RawFeatures(), KMeansClusters(2)),
    "signed votes": lambda: SignedVotes(RawFeatures(), KMeansClusters(2)),
    "class means": lambda: MeanSimilarity(RawFeatures(), RBFKernel()),
    "centroids": lambda: NearestCentroid(RawFeatures()),
    "parts": lambda: PartitionAggregation(parts=3, features=RawFeatures()),
    "run-off": lambda: PartitionAggregation(parts=5, election="run_off", features=RawFeatures()),
}


def problem(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Seven points of two classes, one of them given a label that is neither, and points to certify."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    inputs = torch.stack([2.0 * labels, torch.zeros(7)], 1) + 0.3 * torch.randn(7, 2, generator=stream)
    if seed % 2:
        labels[6] = 5
    return inputs, labels, torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.2, 0.1]])


@pytest.mark.parametrize("name", LEARNERS)
def test_no_label_at_all_changes_a_prediction_within_the_radius(name: str) -> None:
    reached = 0
    for seed in range(2):
        inputs, labels, points = problem(seed)
        learner = LEARNERS[name]()
        certificate = learner.fit(inputs, labels, 2, scope="any").certify(points)
        for changes in range(1, min(int(certificate.radius.max()), 2) + 1):
            kept = certificate.radius >= changes
            for where in combinations(range(7), changes):
                for written in product((0, 1, -3, 9), repeat=changes):
                    changed = labels.clone()
                    changed[list(where)] = torch.tensor(written)
                    found = learner.fit(inputs, changed, 2, scope="any").certify(points)
                    assert torch.equal(found.prediction[kept], certificate.prediction[kept])
                    reached += 1
    assert reached or name in ("class means", "centroids", "parts", "run-off", "signs")


@pytest.mark.parametrize("name", ["ridge", "signs", "neighbours", "signed votes"])
def test_one_class_more_costs_what_an_attack_with_it_needs(name: str) -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    inputs = torch.eye(4)[labels] + 0.4 * torch.randn(40, 4, generator=stream)
    points = torch.eye(4) + 0.2 * torch.randn(4, 4, generator=stream)
    learner = LEARNERS[name]().fit(inputs, labels, 4, scope="any")
    certificate = learner.certify(points)
    declared = LEARNERS[name]().fit(inputs, labels, 4).certify(points)
    same = certificate.prediction == declared.prediction
    assert (certificate.radius[same] <= declared.radius[same]).all()
    for row, flips in enumerate(learner.optimal_flips(learner.transform(points))):  # type: ignore[attr-defined]
        assert flips is not None
        assert int(certificate.radius[row]) + 1 <= len(flips) <= int(certificate.radius[row]) + 2
        broken = LEARNERS[name]().fit(inputs, flips.apply(labels), 4, scope="any").certify(points)
        assert broken.prediction[row] == flips.new_prediction != certificate.prediction[row]


def test_on_digits_an_undeclared_class_halves_the_radius_of_signed_votes_and_ends_that_of_class_means() -> None:
    def median(learner: CertifiedLearner, scope: str) -> int:
        learner.fit(IMAGES[:500], LABELS[:500], 10, scope=scope)  # type: ignore[arg-type]
        return int(learner.certify(IMAGES[500:540]).radius.median())

    votes = SignedVotes(HOGFeatures(), KMeansClusters(10))
    declared, anything = median(votes, "declared"), median(votes, "any")
    assert 0 < anything < 0.65 * declared
    means = MeanSimilarity(HOGFeatures())
    assert median(means, "declared") > 0
    assert median(means, "any") == 0


def test_votes_of_parts_cover_any_label_as_they_are() -> None:
    learners = [
        PartitionAggregation(parts=60, own_radii=False, features=RawFeatures()).fit(
            IMAGES[:900], LABELS[:900], 10, scope=scope
        )
        for scope in ("declared", "any")
    ]
    declared, anything = (learner.certify(IMAGES[900:1100]) for learner in learners)
    assert torch.equal(declared.prediction, anything.prediction)
    assert torch.equal(declared.radius, anything.radius)


def test_words_say_which_labels_are_covered() -> None:
    learner = CertifiedRidge(RawFeatures())
    inputs, labels = torch.eye(4), torch.tensor([0, 1, 0, 1])
    declared = learner.fit(inputs, labels, 2).guarantee()
    assert "each to any of 2 classes: labels that are none of these must be refused before training" in declared
    counted = learner.fit(inputs, labels, 2, scope="counted").guarantee()
    assert (
        "each to any of 2 classes, which were counted in the labels: whoever fits again must say num_classes=2"
        in counted
    )
    anything = learner.fit(inputs, labels + 1, 2, scope="any")
    assert (anything.num_classes, anything.labels.max()) == (3, 2)
    assert (
        "each to any label at all: what is none of the 2 declared classes counts as one class more"
        in anything.guarantee()
    )
    assert "; any label at all; " in anything.note()


def test_labels_are_among_the_declared_classes_or_refused() -> None:
    with pytest.raises(UserError, match=r"labels must lie in \[0, 1\], got 2 at row 3"):
        CertifiedRidge(RawFeatures()).fit(torch.eye(4), torch.tensor([0, 1, 0, 2]), 2)
    with pytest.raises(UserError, match="labels must be a vector of integer class numbers"):
        CertifiedRidge(RawFeatures()).fit(torch.eye(4), torch.tensor([0.0, 1, 0, 2]), 2, scope="any")
    with pytest.raises(UserError, match="scope must be one of declared, counted, any, got all"):
        CertifiedRidge(RawFeatures()).fit(torch.eye(4), torch.tensor([0, 1, 0, 1]), 2, scope="all")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="coding must be signs with more than two classes"):
        SmoothedRidge(RawFeatures(), coding="zero_one").fit(torch.eye(4), torch.tensor([0, 1, 0, 1]), 2, scope="any")


def test_no_ceiling_is_below_zero() -> None:
    assert radius_ceiling(torch.tensor([0, 1, 3]), torch.tensor([0, 0, 0]), 4).tolist() == [1, 0, 0]
