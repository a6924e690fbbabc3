"""Ridge on features with certificates, its guarantee in words, and its part of the report."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from lightning_poison.certificates import (
    CertifiedPoints,
    CertifiedRidge,
    FlipAttacks,
    FrozenFeatures,
    PCAFeatures,
    RandomConvFeatures,
    RawFeatures,
    certify_label_linear,
)
from lightning_poison.certificates.section import CertifiedMethod, certification_section
from lightning_poison.certificates.undefended import AttackedPoints
from lightning_poison.errors import UserError
from lightning_poison.functional.ridge import Ridge

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)


def test_it_is_ridge_on_the_features_in_chunks() -> None:
    learner = CertifiedRidge(PCAFeatures(dim=20), 0.2).fit(IMAGES[:500].split(64), LABELS[:500], 10)
    seen: list[int] = []
    certificate = learner.certify_features(learner.transform(IMAGES[500:600]), seen.append)
    features = PCAFeatures(dim=20).fit(IMAGES[:500])
    ridge = Ridge(features.transform(IMAGES[:500]), 0.2)
    expected = certify_label_linear(ridge.weights(features.transform(IMAGES[500:600])), LABELS[:500], 10)
    assert torch.equal(certificate.prediction, expected.prediction)
    assert torch.equal(certificate.radius, expected.radius)
    assert sum(seen) == 100


def test_the_default_on_digits_is_accurate_and_certified() -> None:
    learner = CertifiedRidge(RandomConvFeatures()).fit(IMAGES[:1400], LABELS[:1400], 10)
    certificate = learner.certify(IMAGES[1400:])
    right = certificate.prediction == LABELS[1400:]
    assert right.double().mean() > 0.9
    assert (right & (certificate.radius >= 5)).double().mean() > 0.5


def test_leading_directions_equal_ridge_on_the_rank_reduced_features() -> None:
    learner = CertifiedRidge(RawFeatures(), 0.2, max_dim=12).fit(IMAGES[:300], LABELS[:300], 10)
    features = IMAGES.flatten(1).double()
    directions = torch.linalg.svd(features[:300], full_matrices=False).Vh[:12].T
    ridge = Ridge(features[:300] @ directions, 0.2)
    expected = certify_label_linear(ridge.weights(features[300:340] @ directions), LABELS[:300], 10)
    certificate = learner.certify(IMAGES[300:340])
    assert torch.equal(certificate.prediction, expected.prediction)
    assert torch.equal(certificate.radius, expected.radius)
    assert "12 leading directions" in learner.describe()


def test_flipped_labels_move_votes_but_no_feature() -> None:
    flipped = LABELS[:500].clone()
    flipped[::7] = (flipped[::7] + 1) % 10
    clean, poisoned = (CertifiedRidge(RandomConvFeatures(8)).fit(IMAGES[:500], y, 10) for y in (LABELS[:500], flipped))
    assert torch.equal(clean.transform(IMAGES[:9]), poisoned.transform(IMAGES[:9]))


def test_a_class_that_no_label_has_is_a_rival() -> None:
    learner = CertifiedRidge(RawFeatures()).fit(IMAGES[:50], torch.zeros(50, dtype=torch.int64), 2)
    certificate = learner.certify(IMAGES[:5])
    assert certificate.prediction.tolist() == [0] * 5
    assert (certificate.radius < 50).all()


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(UserError, match="must be fitted before certify"):
        CertifiedRidge(RawFeatures()).certify(IMAGES[:1])
    with pytest.raises(UserError, match="inputs must match the labels, got 9 inputs for 8 labels"):
        CertifiedRidge(RawFeatures()).fit(IMAGES[:9], LABELS[:8], 10)
    with pytest.raises(UserError, match="regularisation must lie in"):
        CertifiedRidge(RawFeatures(), -0.1)
    with pytest.raises(UserError, match="labels must lie in"):
        CertifiedRidge(RawFeatures()).fit(IMAGES[:9], LABELS[:9], 3)


def test_no_points_give_an_empty_certificate() -> None:
    learner = CertifiedRidge(RawFeatures()).fit(IMAGES[:9], LABELS[:9], 10)
    assert len(learner.certify(iter(()))) == 0


def test_the_guarantee_names_threat_learner_reach_and_assumptions() -> None:
    text = CertifiedRidge(PCAFeatures(7), 0.25).fit(IMAGES[:1234], LABELS[:1234], 11).guarantee()
    for words in (
        "up to r of the 1,234 training labels",
        "any of 11 classes",
        "inputs stay as they are",
        "knows everything",
        "relative strength 0.25",
        "7 principal components",
        "NOT for the neural network",
        "end-to-end, as the features were built from inputs alone",
        "fixed without these training labels",
    ):
        assert words in text
    assert "not end-to-end" not in text


def test_features_that_may_have_seen_labels_change_the_wording() -> None:
    text = CertifiedRidge(FrozenFeatures(nn.Identity()), 0.1).guarantee()
    assert "not end-to-end" in text
    assert "the features may have been learnt from poisoned labels" in text
    assert "not end-to-end" not in CertifiedRidge(FrozenFeatures(nn.Identity(), label_free=True)).guarantee()


@pytest.mark.parametrize("features", [RawFeatures(), FrozenFeatures(nn.Identity())])
def test_the_report_shows_every_radius_the_curve_and_the_guarantee(features: RawFeatures | FrozenFeatures) -> None:
    method = certified(features, 0.05)
    section = certification_section({"": method}, [0, 2, 5])
    assert [row[0] for row in section.tables[0].rows] == [0, 2, 5]
    assert section.tables[0].rows[1][1] == f"{method.points.accuracy([2])[0]:.2%}"
    assert section.text == tuple(method.learner.guarantee().splitlines())
    assert section.figures[0].png.startswith(b"\x89PNG")
    for words in (section.tables[0].caption, section.figures[0].caption):
        assert features.reach in words


def certified(features: RawFeatures | FrozenFeatures, regularisation: float) -> CertifiedMethod:
    learner = CertifiedRidge(features, regularisation).fit(IMAGES[:100].flatten(1), LABELS[:100], 10)
    points = CertifiedPoints(torch.arange(50), LABELS[100:150], learner.certify(IMAGES[100:150].flatten(1)))
    return CertifiedMethod(learner, points)


def test_the_report_compares_methods_and_says_once_what_they_share() -> None:
    methods = {"weak": certified(RawFeatures(), 0.01), "strong": certified(RawFeatures(), 1.0)}
    fragile = FlipAttacks(LABELS[100:150], torch.full((50,), 2), [torch.arange(2)] * 50)
    attacked = {"none": AttackedPoints(torch.arange(50), LABELS[100:150], fragile)}
    section = certification_section(methods, [0, 3], published={"SS-DPA": {0: 0.95}}, attacked=attacked)
    assert section.tables[0].columns == ("r", "weak", "strong", "none")
    assert [row[-1] for row in section.tables[0].rows] == ["100.00%", "0.00%"]
    assert sum(line.startswith("Threat") for line in section.text) == 1
    assert [line.split(".")[0] for line in section.text if "Learner" in line] == ["weak", "strong"]
    median, mean, ceiling, reached, unchanged, abstains = section.tables[1].rows[1][1:]
    radius = methods["strong"].points.certificate.radius
    assert (median, mean, unchanged) == (
        int(radius.median()),
        round(float(radius.double().mean()), 1),
        int(radius.min()),
    )
    assert ceiling == pytest.approx(9, abs=1)
    assert reached == f"{float(radius.double().mean() / methods['strong'].ceiling().double().mean()):.1%}"
    assert abstains == 0


def test_no_radius_exceeds_the_ceiling() -> None:
    method = certified(RawFeatures(), 100.0)
    assert (method.points.certificate.radius <= method.ceiling()).all()
