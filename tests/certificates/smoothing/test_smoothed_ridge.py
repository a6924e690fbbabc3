"""The smoothed learner: invariants between its options, eq. 6, what it says, and training points over processes."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_poison.certificates import CertifiedRidge, PCAFeatures, RawFeatures
from lightning_poison.certificates.smoothing import (
    SmoothedRidge,
    smoothed_predictions,
    tight_radius,
)
from lightning_poison.certificates.smoothing import smoothed_ridge as module
from lightning_poison.certificates.smoothing.smoothed_ridge import strength_of_equation_6
from lightning_poison.errors import UserError
from lightning_poison.functional.ridge import Ridge

INPUTS = torch.tensor(load_digits().data / 16, dtype=torch.float32)
LABELS = torch.tensor(load_digits().target)
PAIR = ((LABELS == 3) | (LABELS == 8)).nonzero()[:, 0]


def binary() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return INPUTS[PAIR[:300]], (LABELS[PAIR[:300]] == 8).long(), INPUTS[PAIR[300:]]


@pytest.mark.parametrize("q", [0.02, 0.2, 0.4])
def test_each_option_certifies_at_least_as_much_as_the_one_before_and_plain_ridge_the_most(q: float) -> None:
    inputs, labels, points = binary()
    options = [("chernoff", "kl"), ("chernoff", "tight"), ("berry_esseen", "tight")]
    learners = [SmoothedRidge(PCAFeatures(8), q, tail=tail, radius=radius) for tail, radius in options]
    certificates = [learner.fit(inputs, labels, 2).certify(points) for learner in learners]
    exact = CertifiedRidge(PCAFeatures(8), 1.0).fit(inputs, labels, 2).certify(points)
    radii = [certificate.radius for certificate in (*certificates, exact)]
    for fewer, more in itertools.pairwise(radii):
        assert (fewer <= more).all()
        assert fewer.sum() < more.sum()
    for certificate in certificates:
        assert torch.equal(certificate.prediction, exact.prediction)


def test_it_is_algorithm_1_on_the_weights_of_ridge() -> None:
    inputs, labels = INPUTS[:700], LABELS[:700]
    learner = SmoothedRidge(RawFeatures(), q=0.1, tail="chernoff").fit(inputs, labels, 10)
    seen: list[int] = []
    certificate = learner.certify_features(INPUTS[700:760], seen.append)
    expected = smoothed_predictions(Ridge(inputs, 1.0).weights(INPUTS[700:760]), labels, 0.1, 10, tail="chernoff")
    assert torch.equal(certificate.prediction, expected.prediction)
    difference = certificate.radius - tight_radius(expected.log_error, 0.1, 10, 700)
    assert int(difference.abs().max()) <= 1
    assert (certificate.prediction == LABELS[700:760]).double().mean() > 0.85
    assert sum(seen) == 60
    assert len(learner.certify_features(INPUTS[:0])) == 0


def test_large_features_which_are_read_in_larger_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels, points = binary()
    small = SmoothedRidge(RawFeatures(), 0.1).fit(inputs, labels, 2).certify(points)
    monkeypatch.setattr(module, "_LARGE", 0)
    large = SmoothedRidge(RawFeatures(), 0.1).fit(inputs, labels, 2).certify(points)
    assert torch.equal(small.prediction, large.prediction)
    assert torch.equal(small.radius, large.radius)


@pytest.mark.parametrize("regularisation", [1.0, 1e-17])
def test_the_weights_of_a_refit_on_other_labels_are_the_same_to_the_last_bit(regularisation: float) -> None:
    # The second column triples the first: without a ridge rounding decides about the weights, and it must not see
    # labels. At 1e-17 weights that were computed in the order of the labels moved by more than their size.
    stream = torch.Generator().manual_seed(26)
    inputs = torch.randn(8, 3, generator=stream, dtype=torch.float64)
    inputs[:, 1] = 3 * inputs[:, 0]
    points = torch.randn(20, 3, generator=stream, dtype=torch.float64)

    def weights(labels: torch.Tensor) -> torch.Tensor:
        learner = SmoothedRidge(RawFeatures(), 0.1, regularisation=regularisation, intercept=False)
        (votes,) = learner.fit(inputs, labels, 2).votes(points)
        return votes.weights[:, learner.labels.argsort(stable=True).argsort()]

    expected = weights(torch.tensor([0, 1, 0, 0, 0, 0, 0, 1]))
    for labels in torch.randint(2, (20, 8), generator=stream):
        assert torch.equal(weights(labels), expected)


def test_more_classes_than_labels_and_one_class() -> None:
    inputs, labels, points = binary()
    three = SmoothedRidge(RawFeatures(), 0.1).fit(inputs, labels, 3).certify(points)
    two = SmoothedRidge(RawFeatures(), 0.1).fit(inputs, labels, 2).certify(points)
    assert torch.equal(three.prediction, two.prediction)
    assert (SmoothedRidge(RawFeatures(), 0.1).fit(inputs, 0 * labels, 2).certify(points).prediction == 0).all()


def test_equation_6_is_the_papers_and_says_that_it_is_no_proof() -> None:
    inputs, labels, points = binary()
    features = PCAFeatures(8).fit(inputs).transform(inputs).numpy()
    _, residual, _, singular = np.linalg.lstsq(features, labels.numpy().astype(float), rcond=None)
    variance = residual[0] / (300 - 8)
    expected = (1 + 0.1) * variance * 8 / (2 * 300) * (singular[0] / singular[-1]) ** 2
    assert strength_of_equation_6(torch.tensor(features), labels, 0.1) == pytest.approx(expected, rel=1e-9)
    learner = SmoothedRidge(PCAFeatures(8), 0.1, coding="zero_one", strength="eq6", intercept=False)
    with pytest.warns(UserWarning, match="NOT a proof"):
        learner.fit(inputs, labels, 2)
    assert learner._ridge.strength == pytest.approx(expected, rel=1e-9)
    assert "NOT a proof" in learner.guarantee()
    assert "holds with certainty" not in learner.guarantee()
    assert "sees the labels" in learner.note()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proof = SmoothedRidge(PCAFeatures(8), 0.1).fit(inputs, labels, 2)
    assert "holds with certainty" in proof.guarantee()
    assert len(learner.certify(points)) == len(points)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"q": 0.5}, "q must lie strictly between"),
        ({"radius": "best"}, "radius must be one of kl, tight"),
        ({"strength": "eq7"}, "strength must be one of relative, eq6"),
        ({"coding": "onehot"}, "coding must be one of"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments: dict[str, object], words: str) -> None:
    inputs, labels, _ = binary()
    with pytest.raises(UserError, match=words):
        SmoothedRidge(RawFeatures(), **arguments).fit(inputs, labels, 2)


def test_eq6_needs_two_classes_and_full_rank() -> None:
    learner = SmoothedRidge(RawFeatures(), strength="eq6")
    with pytest.raises(UserError, match="strength must be relative with more than two classes"):
        learner.fit(INPUTS[:100], LABELS[:100], 10)
    with pytest.raises(UserError, match="features must have full rank"), pytest.warns(UserWarning, match="proof"):
        learner.fit(INPUTS[:100], (LABELS[:100] > 4).long(), 2)


def test_the_kl_radius_shows_what_it_gives_away() -> None:
    inputs, labels, _ = binary()
    learners = [SmoothedRidge(PCAFeatures(8), 0.25, radius=radius) for radius in ("kl", "tight")]
    kl, tight = (learner.fit(inputs, labels, 2).report_figures() for learner in learners)
    assert [figure.name for figure in kl] == ["required-margin-q-0-25"]
    assert kl[0].png.startswith(b"\x89PNG")
    assert tight == ()


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (SmoothedRidge(q=0.95), "q must lie strictly between 0 and 1 - 1/num_classes = 0.9"),
        (SmoothedRidge(strength="eq6"), "strength must be relative with more than two classes"),
        (SmoothedRidge(coding="zero_one"), "coding must be signs with more than two classes"),
    ],
)
def test_what_ten_classes_do_not_allow_is_refused_before_anything_is_fitted(
    learner: SmoothedRidge, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        learner.check_size(1000, 10)
