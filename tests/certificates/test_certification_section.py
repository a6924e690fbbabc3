"""Certificates in a report: nothing is called proved that is not, and what learners share is said once."""

from __future__ import annotations

import torch

from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedPoints,
    CertifiedRidge,
    FlipAttacks,
    FrozenFeatures,
    KernelSigns,
    KMeansClusters,
    LearnerTraining,
    MonteCarloSmoothing,
    PartitionAggregation,
    PCAFeatures,
    RandomFourierFeatures,
    RawFeatures,
    SignedVotes,
    SklearnTraining,
    SmoothedRidge,
    SpectralFeatures,
)
from lightning_poison.certificates.guarantee import Certainty, Promise
from lightning_poison.certificates.section import CertifiedMethod, certification_section
from lightning_poison.certificates.undefended import AttackedPoints
from lightning_poison.report.section import Section

INPUTS, LABELS = torch.arange(60.0)[:, None] / 60, torch.arange(60) // 30
POINTS = torch.tensor([[0.0], [0.49], [1.0]])


def section(learners: dict[str, CertifiedLearner]) -> Section:
    methods = {}
    for name, learner in learners.items():
        certificate = learner.fit(INPUTS, LABELS, 2).certify(POINTS)
        methods[name] = CertifiedMethod(learner, CertifiedPoints(torch.arange(3), torch.tensor([0, 0, 1]), certificate))
    return certification_section(methods, [0, 1])


def test_learners_with_the_same_words_share_a_line() -> None:
    found = section({"a": CertifiedRidge(RawFeatures(), 1.0), "b": CertifiedRidge(RawFeatures(), 1.0)})
    assert len(found.text) == 4
    found = section({"a": SmoothedRidge(RawFeatures()), "b": SmoothedRidge(RawFeatures()), "c": CertifiedRidge()})
    assert [line.partition(". ")[0] for line in found.text[1:3]] == ["a, b", "c"]


def test_abstentions_are_said_and_count_as_zero() -> None:
    learner = MonteCarloSmoothing(CertifiedRidge(RawFeatures()), q=0.3, runs=20, alpha=0.01, points=3)
    found = section({"mc": learner, "ridge": CertifiedRidge(RawFeatures())})
    (name, median, mean, _, _, unchanged, abstains), _ = found.tables[1].rows
    assert (name, median, unchanged, abstains) == ("mc", 0, None, "33.33%")
    assert isinstance(mean, float)
    assert mean >= 0
    assert "mc: probability 0.99 for all points." in found.tables[0].caption
    assert "mc: probability 0.99 for all points." in found.figures[0].caption


def test_what_is_no_proof_is_not_called_one() -> None:
    noisy = LABELS.clone()
    noisy[::7] = 1 - noisy[::7]
    learner = SmoothedRidge(PCAFeatures(1), strength="eq6", intercept=False).fit(INPUTS, noisy, 2)
    assert learner.note().startswith("not proved; ")
    assert "is claimed, but not proved, to keep this prediction" in learner.guarantee()
    assert CertifiedRidge().note().startswith("proved; ")


def test_a_promise_that_the_guarantee_rests_on_is_part_of_it() -> None:
    learner = CertifiedRidge(FrozenFeatures(torch.nn.Linear(1, 2), label_free=True)).fit(INPUTS, LABELS, 2)
    assert "end-to-end, as long as the frozen network was trained without these labels." in learner.guarantee()
    assert learner.promise().premises == ("the frozen network was trained without these labels",)


def test_wrappers_of_frozen_features_keep_reach_and_premise() -> None:
    words = "as long as the frozen network was trained without these labels."
    for free in (True, False):
        frozen = FrozenFeatures(torch.nn.Linear(1, 2), label_free=free)
        base = CertifiedRidge(frozen)
        learners: list[CertifiedLearner] = [
            CertifiedRidge(RandomFourierFeatures(frozen, dim=8)),
            CertifiedRidge(SpectralFeatures(frozen, dim=2)),
            KernelSigns(CertifiedRidge(frozen, intercept=False)),
            PartitionAggregation(base, features=RawFeatures()),
            PartitionAggregation(features=frozen),
            MonteCarloSmoothing(LearnerTraining(base), features=RawFeatures()),
        ]
        for learner in learners:
            assert learner.end_to_end is free
            assert (words in learner.guarantee()) is free
            assert ("not end-to-end, the head only" in learner.guarantee()) is not free


def test_a_wrapper_is_transductive_if_what_it_wraps_is() -> None:
    votes = SignedVotes(RawFeatures(), KMeansClusters(2), transductive=True)
    learner = KernelSigns(votes).fit(INPUTS, LABELS, 2)
    assert learner.transductive
    assert learner.needs_all_points
    assert "It is transductive" in learner.guarantee()
    assert "; of these points together; " in learner.note()
    assert not KernelSigns(SignedVotes(RawFeatures())).transductive


def test_probabilities_are_told_with_whom_they_hold_against() -> None:
    alone = MonteCarloSmoothing(CertifiedRidge(RawFeatures()), q=0.1, runs=20, alpha=0.01).fit(INPUTS, LABELS, 2)
    together = MonteCarloSmoothing(CertifiedRidge(RawFeatures()), q=0.1, runs=20, alpha=0.01, points=5)
    text = alone.guarantee()
    assert "an adversary who knows everything but the learner's own draws" in text
    assert "must not know the seed" in text
    assert (alone.certainty().of_all_points, together.certainty().of_all_points) == (False, True)
    assert (alone.needs_all_points, together.needs_all_points) == (False, True)
    assert alone.certainty().probability == 0.99


def test_not_one_prediction_changes_is_said_of_proofs_only() -> None:
    proof = section({"ridge": CertifiedRidge(RawFeatures())})
    assert (
        "not one prediction on the evaluation points changes, whichever labels are changed." in proof.tables[1].caption
    )
    procedure = SklearnTraining("sklearn.naive_bayes.GaussianNB")
    alone = section({"mc": MonteCarloSmoothing(procedure, q=0.1, runs=30, alpha=0.2)})
    assert "not one prediction" not in alone.tables[1].caption
    assert [row[5] for row in alone.tables[1].rows] == [None]
    together = section({"mc": MonteCarloSmoothing(procedure, q=0.01, runs=30, alpha=0.45, points=3)})
    assert "changed, with probability 0.55 at least" in together.tables[1].caption
    noisy = LABELS.clone()
    noisy[::7] = 1 - noisy[::7]
    learner = SmoothedRidge(PCAFeatures(1), strength="eq6", intercept=False).fit(INPUTS, noisy, 2)
    method = CertifiedMethod(
        learner, CertifiedPoints(torch.arange(3), torch.tensor([0, 0, 1]), learner.certify(POINTS))
    )
    unproved = certification_section({"eq6": method}, [0, 1])
    assert "not one prediction" not in unproved.tables[1].caption
    assert [row[5] for row in unproved.tables[1].rows] == [None]


class OnAnAccelerator(SklearnTraining):
    """Says that it need not repeat itself."""

    repeatable = False


def test_parts_that_are_trained_where_trainings_need_not_repeat_themselves_are_no_proof() -> None:
    procedure = OnAnAccelerator("sklearn.naive_bayes.GaussianNB")
    learner = PartitionAggregation(procedure, parts=3, features=RawFeatures()).fit(INPUTS, LABELS, 2)
    assert learner.certainty().kind == "not proved"
    assert "holds with certainty" not in learner.guarantee()
    assert "repeat themselves to the last bit" in learner.guarantee()
    assert learner.note().startswith("not proved; ")
    sure = PartitionAggregation(SklearnTraining("sklearn.naive_bayes.GaussianNB"), parts=3, features=RawFeatures())
    assert sure.certainty() == Certainty()


def test_what_attacks_found_is_a_bound_from_above() -> None:
    learner = CertifiedRidge(RawFeatures()).fit(INPUTS, LABELS, 2)
    method = CertifiedMethod(
        learner, CertifiedPoints(torch.arange(3), torch.tensor([0, 0, 1]), learner.certify(POINTS))
    )
    attacks = FlipAttacks(torch.tensor([0, 1]), torch.tensor([3, 61]), [torch.arange(3), torch.arange(0)])
    points = AttackedPoints(torch.tensor([0, 2]), torch.tensor([0, 1]), attacks)
    assert points.certainty.claim == "bound from above"
    assert points.accuracy([0, 2, 3]) == [1.0, 1.0, 0.5]
    assert points.csv() == "index,label,prediction,flips\n0,0,0,3\n2,1,1,61\n"
    found = certification_section({"": method}, [0, 3], attacked={"logistic": points})
    assert "Logistic: share of 2 of them still right after r flips that an attack found, a bound from above." in (
        found.tables[0].caption
    )


def test_methods_against_other_labels_stand_side_by_side() -> None:
    methods = {}
    for name, scope in (("", "declared"), ("any_label", "any")):
        learner = CertifiedRidge(RawFeatures()).fit(INPUTS, LABELS, 2, scope=scope)  # type: ignore[arg-type]
        points = CertifiedPoints(torch.arange(3), torch.tensor([0, 0, 1]), learner.certify(POINTS))
        methods[name] = CertifiedMethod(learner, points)
    found = certification_section(methods, [0, 1])
    assert "are changed (this learner: to any of 2 classes; any_label: to any label at all)" in found.tables[0].caption
    assert found.tables[0].columns == ("r", "certified accuracy", "any_label")
    assert [line.partition(":")[0] for line in found.text[:2]] == ["this learner. Threat", "any_label. Threat"]


def test_all_words_are_made_of_facts() -> None:
    learner = CertifiedRidge(RawFeatures()).fit(INPUTS, LABELS, 2)
    promise = learner.promise()
    assert isinstance(promise, Promise)
    assert "\n".join(promise.lines()) == learner.guarantee()
    assert promise.note == learner.note()
