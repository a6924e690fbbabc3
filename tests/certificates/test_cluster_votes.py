"""Cluster votes and signed votes: refits on every relabelling, attacks at r and r + 1, and blindness to labels."""

from itertools import product

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_poison.certificates import (
    ClusterVotes,
    FrozenFeatures,
    HOGFeatures,
    KernelSigns,
    KMeansClusters,
    LearnerTraining,
    RawFeatures,
    SignedVotes,
    SpectralClusters,
    certify_label_linear,
    radius_ceiling,
)
from lightning_poison.certificates.learners.clusters import Clusters
from lightning_poison.errors import UserError

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)
KINDS = [ClusterVotes, SignedVotes]


def blobs(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Well separated groups of points, one for each class, in random order."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=stream)]
    return torch.randn(len(labels), 2, generator=stream) + 20 * torch.eye(len(counts), 2)[labels], labels


class _Counted(Clusters):
    """Remembers how often it was asked to divide points."""

    def __init__(self, inner: Clusters) -> None:
        super().__init__(inner.clusters)
        self.inner, self.fits = inner, 0

    def fit(self, features: Tensor) -> Tensor:
        self.fits += 1
        return self.inner.fit(features)

    def assign(self, features: Tensor) -> Tensor:
        return self.inner.assign(features)

    def describe(self) -> str:
        return self.inner.describe()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transductive", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_refitted_to_every_relabelling_it_keeps_its_prediction_within_the_radius(
    kind: type[ClusterVotes], transductive: bool, classes: int
) -> None:
    """The learner itself, from the inputs on, is trained again on all K^6 labels; the bound is attained or a tie."""
    inputs, _ = blobs([4, 2])
    stream = torch.Generator().manual_seed(classes)
    points = torch.tensor([[20.0, 0.5], [0.5, 20.0]])
    for _ in range(5 - classes):
        labels = torch.randint(classes, (6,), generator=stream)

        def make() -> ClusterVotes:
            return kind(RawFeatures(), KMeansClusters(2), transductive)  # called in this turn only

        certificate = make().fit(inputs, labels, classes).certify(points)
        again = make().fit(inputs, labels, classes)
        fewest, level = torch.full((2,), 7), torch.full((2,), 7)
        for other in product(range(classes), repeat=6):
            changed = torch.tensor(other)
            changes = int((changed != labels).sum())
            again.fit_features(inputs, changed, classes)
            found = again.certify(points)
            moved = found.prediction != certificate.prediction
            assert not (moved & (certificate.radius >= changes)).any()
            fewest[moved] = fewest[moved].clamp(max=changes)
            scores = again.weights(points) @ torch.nn.functional.one_hot(changed, classes).float()
            own = scores.gather(1, certificate.prediction[:, None])[:, 0]
            others = scores.scatter(1, certificate.prediction[:, None], -99).amax(1)
            level[others >= own] = level[others >= own].clamp(max=changes)
        assert torch.equal(certificate.radius, (level - 1).clamp(min=0))
        assert (fewest > certificate.radius).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transductive", [False, True])
def test_the_table_gives_what_the_general_theorem_gives_and_the_attack_confirms(
    kind: type[ClusterVotes], transductive: bool
) -> None:
    learner = kind(HOGFeatures(dim=20), SpectralClusters(10), transductive).fit(IMAGES[:700], LABELS[:700], 10)
    points = IMAGES[700:760]
    certificate = learner.certify(points)
    features = learner.transform(points)
    general = certify_label_linear(learner.weights(features), LABELS[:700], 10)
    assert torch.equal(certificate.prediction, general.prediction)
    assert torch.equal(certificate.radius, general.radius)
    for row, flips in list(enumerate(learner.optimal_flips(features)))[:3]:
        assert flips is not None
        radius = int(certificate.radius[row])
        assert radius + 1 <= len(flips) <= radius + 2  # one more where r + 1 changes reach a tie that c wins
        broken = kind(HOGFeatures(dim=20), SpectralClusters(10), transductive)
        found = broken.fit(IMAGES[:700], flips.apply(LABELS[:700]), 10).certify(points)
        assert int(found.prediction[row]) == flips.new_prediction != int(certificate.prediction[row])
        fewer = LABELS[:700].clone()
        fewer[flips.index[:radius]] = flips.new_label[:radius]
        kept = broken.fit_features(broken.transform(IMAGES[:700]), fewer, 10).certify(points)
        assert int(kept.prediction[row]) == int(certificate.prediction[row])


@pytest.mark.parametrize("transductive", [False, True])
def test_no_design_choice_sees_a_label(transductive: bool) -> None:
    """Other labels, from the inputs on, leave features and clusters as they are."""
    other = (LABELS[:400] * 7 + 3) % 10
    learners = [
        SignedVotes(HOGFeatures(dim=10), SpectralClusters(10), transductive).fit(IMAGES[:400], labels, 10)
        for labels in (LABELS[:400], other, torch.zeros(400, dtype=torch.int64))
    ]
    features = [learner.transform(IMAGES[400:440]) for learner in learners]
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])
    weights = [learner.weights(feature) for learner, feature in zip(learners, features, strict=True)]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_renaming_the_classes_renames_the_predictions() -> None:
    renamed = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    one, two = (
        SignedVotes(HOGFeatures(dim=10), SpectralClusters(10)).fit(IMAGES[:400], y, 10).certify(IMAGES[400:500])
        for y in (LABELS[:400], renamed[LABELS[:400]])
    )
    assert torch.equal(renamed[one.prediction], two.prediction)
    assert torch.equal(one.radius, two.radius)
    assert (one.radius <= radius_ceiling(one.prediction, LABELS[:400], 10)).all()


@pytest.mark.parametrize("transductive", [False, True])
def test_the_same_points_with_other_labels_are_not_divided_again(transductive: bool) -> None:
    inputs, labels = blobs([30, 20])
    learner = SignedVotes(RawFeatures(), _Counted(KMeansClusters(2)), transductive).fit(inputs, labels, 2)
    clusters = learner.clusters
    assert isinstance(clusters, _Counted)
    learner.certify(inputs[:5])
    assert clusters.fits == 1
    learner.fit(inputs, 1 - labels, 2).certify(inputs[:5])
    assert clusters.fits == 1
    learner.fit(inputs[1:], labels[1:], 2).certify(inputs[:5])
    assert clusters.fits == 2


@pytest.mark.parametrize("transductive", [False, True])
def test_other_points_are_not_taken_for_the_last_ones(transductive: bool) -> None:
    inputs, labels = blobs([9, 5])
    learner = ClusterVotes(RawFeatures(), KMeansClusters(2), transductive).fit(inputs, labels, 2)
    first, second = inputs[labels == 0][:5], inputs[labels == 1][:5]
    assert learner.certify(first).prediction.tolist() == [0] * 5
    assert learner.certify(second).prediction.tolist() == [1] * 5
    assert learner.weights(learner.transform(first))[0].tolist() == (labels == 0).float().tolist()


def test_learners_that_were_given_one_object_do_not_move_each_others_clusters() -> None:
    shared = KMeansClusters(2)
    inputs, labels = blobs([9, 5])
    one = ClusterVotes(RawFeatures(), shared).fit(inputs, labels, 2)
    before = one.certify(inputs)
    ClusterVotes(RawFeatures(), shared).fit(torch.cat([inputs[5:] + 100, inputs[:5]]), labels, 2)
    after = one.certify(inputs[:7])
    assert torch.equal(before.prediction[:7], after.prediction)
    assert torch.equal(before.radius[:7], after.radius)


def test_pure_clusters_reach_the_ceiling_of_every_fair_learner() -> None:
    inputs, labels = blobs([31, 20])
    certificate = SignedVotes(RawFeatures(), KMeansClusters(2)).fit(inputs, labels, 2).certify(inputs)
    assert torch.equal(certificate.prediction, labels)
    assert torch.equal(certificate.radius, radius_ceiling(labels, labels, 2))
    votes = ClusterVotes(RawFeatures(), KMeansClusters(2)).fit(inputs, labels, 2).certify(inputs)
    assert votes.radius[labels == 0].unique().tolist() == [15]
    assert votes.radius[labels == 1].unique().tolist() == [9]


def test_transduction_is_an_argument_and_moves_with_the_evaluation_inputs() -> None:
    assert SignedVotes(transductive=True).transductive
    assert not SignedVotes().transductive
    inputs = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    labels = torch.tensor([0, 0, 1, 1])
    middle, crowd = torch.tensor([[4.0]]), torch.tensor([[4.0], *[[11.0]] * 9, *[[30.0]] * 60])
    alone, together = (
        ClusterVotes(RawFeatures(), KMeansClusters(2), transductive=True).fit(inputs, labels, 2).certify(points)
        for points in (middle, crowd)
    )
    assert alone.radius.item() == 0
    assert together.radius[0] == 0  # one cluster holds all four training points: a tie
    first, second = (
        ClusterVotes(RawFeatures(), KMeansClusters(2)).fit(inputs, labels, 2).certify(points)
        for points in (middle, crowd)
    )
    assert first.prediction[0] == second.prediction[0]


@pytest.mark.parametrize("transductive", [False, True])
def test_no_points_one_point_and_one_class(transductive: bool) -> None:
    inputs, labels = blobs([5, 4])
    learner = SignedVotes(RawFeatures(), KMeansClusters(2), transductive).fit(inputs, labels, 2)
    assert len(learner.certify(iter(()))) == 0
    assert learner.label_counts.sum() == 9
    done: list[int] = []
    learner.certify_features(inputs[:3], done.append)
    assert sum(done) == 3
    single = SignedVotes(RawFeatures(), KMeansClusters(1), transductive).fit(inputs[:1], labels[:1] * 0, 2)
    assert single.certify(inputs[:2]).radius.tolist() == [0, 0]
    alike = SignedVotes(RawFeatures(), KMeansClusters(2), transductive).fit(inputs, labels * 0, 1)
    assert alike.certify(inputs[:2]).radius.tolist() == [9, 9]


def test_duplicates_and_dead_features_give_an_answer() -> None:
    same = torch.zeros(12, 3)
    labels = torch.tensor([0] * 8 + [1] * 4)
    certificate = ClusterVotes(RawFeatures(), KMeansClusters(1)).fit(same, labels, 2).certify(same[:1])
    assert certificate.radius.tolist() == [1]
    spectral = SignedVotes(RawFeatures(), SpectralClusters(2, neighbours=3)).fit(same, labels, 2)
    flipped = spectral.optimal_flips(spectral.transform(same[:1]))[0]
    assert flipped is None or len(flipped) > int(spectral.certify(same[:1]).radius)


def test_errors_and_words() -> None:
    inputs, labels = blobs([3, 3])
    with pytest.raises(UserError, match="clusters must be at most the number of points, got 9 for 6"):
        ClusterVotes(RawFeatures(), KMeansClusters(9)).fit(inputs, labels, 2)
    with pytest.raises(UserError, match="must be fitted before certify"):
        ClusterVotes(RawFeatures()).certify(inputs)
    with pytest.raises(UserError, match="must be finite"):
        ClusterVotes(RawFeatures(), KMeansClusters(2)).fit(inputs * float("nan"), labels, 2)
    with pytest.raises(UserError, match="fitted before points are assigned"):
        KMeansClusters(2).assign(inputs)
    with pytest.raises(UserError, match="clusters must be an integer of at least 1"):
        SpectralClusters(0)
    text = SignedVotes(RawFeatures(), SpectralClusters(2, 3), transductive=True).fit(inputs, labels, 2).guarantee()
    for words in ("signed votes of 2 spectral clusters", "training and evaluation inputs together", "end-to-end"):
        assert words in text
    assert "the number of clusters and the number of neighbours were fixed" in text
    head = SignedVotes(FrozenFeatures(torch.nn.Identity()), KMeansClusters(2)).fit(inputs, labels, 2)
    assert "not end-to-end" in head.guarantee()


def test_signs_of_transductive_votes_are_transductive_too() -> None:
    for transductive in (False, True):
        learner = KernelSigns(SignedVotes(RawFeatures(), KMeansClusters(2), transductive))
        assert learner.transductive is learner.needs_all_points is transductive
    with pytest.raises(UserError, match="got KernelSigns, which is transductive"):
        LearnerTraining(learner)
