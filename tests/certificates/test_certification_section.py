"""Certificates in a report: nothing is called proved that is not, and what learners share is said once."""

from __future__ import annotations

import torch

from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedMethod,
    CertifiedPoints,
    CertifiedRidge,
    FrozenFeatures,
    MonteCarloSmoothing,
    PCAFeatures,
    RawFeatures,
    SmoothedRidge,
    certification_section,
)
from lightning_poison.certificates.guarantee import guarantee
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
    assert "is claimed, but not proved, to keep this prediction" in guarantee(learner)
    assert CertifiedRidge().note().startswith("proved; ")


def test_a_promise_that_the_guarantee_rests_on_is_part_of_it() -> None:
    learner = CertifiedRidge(FrozenFeatures(torch.nn.Linear(1, 2), label_free=True)).fit(INPUTS, LABELS, 2)
    assert "end-to-end, as long as the frozen network was trained without these labels." in guarantee(learner)
