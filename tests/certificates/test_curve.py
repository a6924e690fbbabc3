"""Certified accuracy counted by hand, and certificates of an evaluation set."""

import itertools
import math

import pytest
import torch

from lightning_poison.certificates import CertifiedPoints, LabelFlipCertificate, certified_accuracy
from lightning_poison.certificates.certified_points import default_radii
from lightning_poison.errors import UserError

CERTIFICATE = LabelFlipCertificate(torch.tensor([2, 2, 0, 1]), torch.tensor([7, 0, 9, 3]))
LABELS = torch.tensor([2, 2, 1, 1])


def test_a_point_counts_when_right_and_certified_for_at_least_r() -> None:
    assert certified_accuracy(CERTIFICATE, LABELS, [0, 1, 3, 4, 7, 8]).tolist() == [0.75, 0.5, 0.5, 0.25, 0.25, 0.0]


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="radii must be an integer of at least 0, got -1"):
        certified_accuracy(CERTIFICATE, LABELS, [-1])
    with pytest.raises(UserError, match="labels must match the certificate"):
        certified_accuracy(CERTIFICATE, LABELS[:2], [0])


@pytest.mark.parametrize("counts", [[1, 1], [1, 2], [50, 50], [30, 10, 4], [6000] * 10, [7]])
def test_default_radii_end_at_the_ceiling(counts: list[int]) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    radii = default_radii(labels)
    ceiling = math.ceil(sum(sorted(counts)[-2:]) / 2) - 1
    assert radii[0] == 0
    assert radii == sorted(set(radii))
    assert max(radii) <= max(ceiling, 0)
    assert ceiling < 1 or max(radii) * 2.5 >= ceiling


def test_no_fair_learner_beats_the_ceiling() -> None:
    """The majority vote, by enumeration: every class can be dethroned with ceil((N_c + N_j) / 2) changes."""
    labels = torch.tensor([0, 0, 0, 1, 1])
    breaking = [
        sum(a != b for a, b in zip(labels.tolist(), changed, strict=True))
        for changed in itertools.product(range(2), repeat=5)
        if sum(changed) * 2 > 5
    ]
    assert min(breaking) <= math.ceil((3 + 2) / 2)


def points(index: list[int], radius: list[int]) -> CertifiedPoints:
    where = torch.tensor(index)
    return CertifiedPoints(where, where % 3, LabelFlipCertificate(where % 2, torch.tensor(radius)))


def test_shares_of_ranks_merge_in_order_and_repeats_count_once() -> None:
    merged = CertifiedPoints.merge([points([0, 2, 4], [5, 6, 7]), points([1, 3, -1], [8, 9, 0]), points([0], [5])])
    assert merged.index.tolist() == [0, 1, 2, 3, 4]
    assert merged.certificate.radius.tolist() == [5, 8, 6, 9, 7]
    assert merged.labels.tolist() == [0, 1, 2, 0, 1]
    assert merged.values([0, 8]) == {
        "cert/acc_at_0": 0.4,  # points 0 and 1
        "cert/acc_at_8": 0.2,
        "cert/radius_median": 7.0,
        "cert/radius_mean": 7.0,
    }


def test_the_table_has_a_line_for_each_point() -> None:
    assert points([4, 7], [1, 2]).csv() == "index,label,prediction,radius\n4,1,0,1\n7,1,1,2\n"


def test_a_suffix_ends_every_key() -> None:
    assert set(points([0], [1]).values([0], "_raw")) == {
        "cert/acc_at_0_raw",
        "cert/radius_median_raw",
        "cert/radius_mean_raw",
    }


def test_a_learner_that_abstains_counts_with_radius_zero_and_the_share_is_said() -> None:
    values = points([0, 1, 3, 4, 6], [-1, -1, -1, 7, 8]).values([0, 8], "_mc")
    assert values["cert/radius_median_mc"] == 0.0
    assert values["cert/radius_mean_mc"] == 3.0
    assert values["cert/abstained_mc"] == 0.6
    assert "cert/abstained" not in points([0], [0]).values([0])


def test_what_the_numbers_mean_in_a_report():
    one, many, plain, *_, mean = points([1, 3], [5, 8]).metrics([1, 5400, 0], "_pca", "proved")
    assert one.label == "Certified accuracy at 1 label, pca"
    assert many.label == "Certified accuracy at 5,400 labels, pca"
    assert plain.description == "Accuracy of the certified learner, with the training labels as they are."
    assert (mean.key, mean.unit, mean.headline, mean.radius) == ("cert/radius_mean_pca", "labels", False, None)
    assert {metric.note for metric in (one, many, plain, mean)} == {"proved"}
