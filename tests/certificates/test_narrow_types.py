"""Class numbers, labels and radii that small integers cannot hold: nothing wraps, whatever dtype comes in."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_poison.callbacks.accuracy.round import AttackRound
from lightning_poison.certificates import (
    CertifiedPoints,
    LabelFlipCertificate,
    RawFeatures,
    certified_accuracy,
    certify_class_means,
    certify_label_linear,
    certify_together,
    optimal_label_flips,
    radius_ceiling,
    smoothed_predictions,
)
from lightning_poison.certificates.centroids import Centroids
from lightning_poison.certificates.certified_points import default_radii
from lightning_poison.certificates.label_linear import OptimalFlips
from lightning_poison.certificates.partitions import (
    OneVote,
    PartitionAggregation,
    certify_plurality,
    certify_run_off,
    rank_classes,
)
from lightning_poison.certificates.partitions import aggregation as module
from lightning_poison.certificates.retraining import TrainingProcedure
from lightning_poison.datamodules.labels import _confirmed
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, TrainingSet

MANY = 70_001
DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.int64)


class OneLabel(TrainingProcedure):
    """Says the largest label of its part, as a certified procedure would; the second choice is class 4464."""

    certified = True

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> int:
        return int(labels.max())

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        scores = torch.zeros(len(inputs), num_classes)
        scores[:, 4464], scores[:, model] = 1.0, 2.0
        return scores

    def certify(self, model: Any, inputs: Tensor) -> LabelFlipCertificate:
        return LabelFlipCertificate(torch.full((len(inputs),), model), torch.zeros(len(inputs), dtype=torch.int64))

    def describe(self) -> str:
        return "the largest label"


@pytest.mark.parametrize("own_radii", [True, False])
def test_a_class_above_65_536_is_voted_for_under_its_own_number(own_radii: bool) -> None:
    labels = torch.tensor([MANY - 1] * 5 + [4464] * 3)  # 70,000 as an int16 is 4464: all eight votes would agree
    learner = PartitionAggregation(OneLabel(), parts=8, features=RawFeatures(), own_radii=own_radii, dealing="order")
    certificate = learner.fit(torch.arange(8.0)[:, None], labels, MANY).certify(torch.zeros(2, 1))
    assert certificate.prediction.tolist() == [MANY - 1] * 2
    assert certificate.radius.tolist() == [0, 0]  # one voter that changes sides makes it four against four


def test_ballots_of_a_run_off_hold_every_place_and_class(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def listen(ranks: Tensor, adversary: Any, num_labels: int) -> LabelFlipCertificate:
        seen.append(ranks)
        return LabelFlipCertificate(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))

    monkeypatch.setattr(module, "certify_run_off", listen)
    learner = PartitionAggregation(OneLabel(), parts=2, features=RawFeatures(), election="run_off", dealing="order")
    learner.fit(torch.arange(2.0)[:, None], torch.tensor([MANY - 1] * 2), MANY).certify(torch.zeros(1, 1))
    (ranks,) = seen
    assert ranks.shape == (1, 2, MANY)
    assert ranks[0, 0, [MANY - 1, 4464, 0, MANY - 2]].tolist() == [0, 1, 2, MANY - 1]


def test_places_of_many_classes_are_all_different() -> None:
    assert torch.equal(rank_classes(torch.zeros(1, MANY)).long(), torch.arange(MANY)[None])
    assert rank_classes(torch.zeros(2, 10)).dtype == torch.int16


def test_votes_are_compared_with_the_number_of_classes_as_it_is() -> None:
    votes = torch.tensor([[5000, 5000, 5000, 1]], dtype=torch.int16)  # 70,001 as an int16 is 4465, less than 5,000
    certificate = certify_plurality(votes, MANY, OneVote(), 9)
    assert (certificate.prediction.tolist(), certificate.radius.tolist()) == ([5000], [0])
    with pytest.raises(UserError, match=r"votes must lie in \[0, 299\], got 300 to 300"):
        certify_plurality(torch.tensor([[300, 300]], dtype=torch.int16), 300, OneVote(), 9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_of_any_integer_type_give_the_same_certificates(dtype: torch.dtype) -> None:
    stream = torch.Generator().manual_seed(0)
    labels, weights = torch.randint(3, (30,), generator=stream), torch.randn(2, 30, generator=stream).double()
    small, classes = (
        labels.to(dtype),
        259,
    )  # uint8 labels compared with 256 to 258 seem to be those

    def everything(labels: Tensor) -> list[Any]:
        linear, means = certify_label_linear(weights, labels, classes), certify_class_means(weights, labels, classes)
        centroids = Centroids(weights.T, labels, classes).certify(weights.T[:5])
        together = certify_together(weights, labels, classes, 3, steps=5)
        flips = optimal_label_flips(weights[0], labels, 3)
        assert flips is not None
        smoothed = smoothed_predictions(weights, labels, 0.1, 3)
        return [
            *(part.tolist() for one in (linear, means, centroids) for part in vars(one).values()),
            (together.at_least, together.at_most, flips.index.tolist(), flips.apply(labels).tolist()),
            (smoothed.prediction.tolist(), smoothed.log_error.tolist(), default_radii(labels)),
            certified_accuracy(linear, labels[:2], [0, 1]).tolist(),
            radius_ceiling(labels[:6], labels, classes).tolist(),
        ]

    assert everything(small) == everything(labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_a_flip_to_a_class_that_the_labels_cannot_hold_widens_them(dtype: torch.dtype) -> None:
    labels, point = torch.tensor([1, 1, 1], dtype=dtype), torch.tensor([1])
    assert OptimalFlips(point, point, point - 1, 1, 0).apply(labels).tolist() == [1, 0, 1]
    assert OptimalFlips(point, point, point - 1, 1, 0).apply(labels).dtype == dtype
    assert OptimalFlips(point, point, point + 299, 1, 300).apply(labels).tolist() == [1, 300, 1]
    assert FlipList(point, point, point - 1).apply(labels).dtype == dtype
    assert FlipList(point, point, point + 299).apply(labels).tolist() == [1, 300, 1]
    assert TrainingSet(labels, num_classes=2).labels.dtype == torch.int64  # so that what is made of them fits
    assert labels.tolist() == [1, 1, 1]


class Noted:
    """As many items as one likes; notes which are read."""

    def __init__(self, length: int) -> None:
        self.targets, self.length, self.read = torch.zeros(1, dtype=torch.int64).expand(length), length, []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> tuple[float, int]:
        if position >= self.length:
            raise IndexError(position)
        self.read.append(position)
        return 0.5, 0


def test_positions_beyond_what_a_float32_counts_are_those_that_were_meant() -> None:
    length = 2**24 + 4  # the last position is 2^24 + 3, whose nearest float32 is 2^24 + 4
    dataset = Noted(length)
    assert _confirmed(dataset, dataset.targets, "training")
    assert sorted(set(dataset.read)) == [(length - 1) * step // 7 for step in range(8)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ceiling_takes_predictions_of_any_integer_type(dtype: torch.dtype) -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor([400, 200, 300]))
    predictions = torch.tensor([0, 1, 2, 1], dtype=dtype)
    assert radius_ceiling(predictions, labels, 3).tolist() == [299, 249, 249, 249]  # by hand, halves of 600 and 500
    assert radius_ceiling(torch.zeros(2, dtype=dtype), torch.zeros(900, dtype=torch.int64), 1).tolist() == [900, 900]


def test_the_list_of_certified_points_keeps_large_numbers() -> None:
    large = torch.tensor([2**40 + 1])
    points = CertifiedPoints.merge([CertifiedPoints(large, large, LabelFlipCertificate(large, large))])
    assert points.csv().splitlines()[1] == ",".join([str(2**40 + 1)] * 4)


def test_run_off_takes_ranks_of_many_classes() -> None:
    ranks = rank_classes(torch.eye(400)[[300, 300, 300, 44, 44]][None])  # 300 as a uint8 is 44
    assert certify_run_off(ranks, OneVote(), 9).prediction.tolist() == [300]


def test_only_samples_of_the_source_are_attacked_whatever_holds_their_labels() -> None:
    settings = SimpleNamespace(_left_out=torch.empty(0, dtype=torch.int64), _max_samples=None, _source=300)
    labels = torch.tensor([44, 0], dtype=torch.uint8)  # 300 as a uint8 is 44
    assert AttackRound._rows(settings, torch.arange(2), labels).tolist() == []
