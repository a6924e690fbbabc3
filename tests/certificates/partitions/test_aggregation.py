"""Partition aggregation against every relabelling of small data, with learners that do whatever they like."""

import hashlib
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_poison.certificates import (
    CertifiedRidge,
    FrozenFeatures,
    LabelFlipCertificate,
    PCAFeatures,
    RawFeatures,
)
from lightning_poison.certificates.partitions import PartitionAggregation, deal_parts, users_of_parts
from lightning_poison.certificates.retraining import (
    LearnerTraining,
    MonteCarloSmoothing,
    SklearnTraining,
    TrainingProcedure,
)
from lightning_poison.certificates.smoothing import SmoothedRidge
from lightning_poison.errors import UserError

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)


class Erratic(TrainingProcedure):
    """Counts its labels, and adds what a hash of them says: any function of the labels may come up."""

    def __init__(self, size: float, salt: int) -> None:
        self.size, self.salt = size, salt

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> Tensor:
        digest = hashlib.sha256(repr((self.salt, inputs.tolist(), labels.tolist())).encode()).digest()
        noise = torch.tensor(list(digest[:num_classes])).double() / 256
        return labels.bincount(minlength=num_classes) + self.size * noise

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        return model.expand(len(inputs), -1)

    def describe(self) -> str:
        return "an erratic rule"


def predictions_of_all_relabellings(learner: PartitionAggregation, point: Tensor, labels: Tensor) -> dict[Any, int]:
    """The prediction for each relabelling, by training for each, without the engine and the elections."""
    n, num_classes, sets = len(labels), learner.num_classes, learner._training_sets()
    voters = [sets.of_run(run)[0] for run in range(len(sets))]
    tables: list[dict[Any, np.ndarray]] = []
    for points in voters:
        table = {}
        for part in product(range(num_classes), repeat=len(points)):
            model = learner.procedure.train(learner._inputs[points], torch.tensor(part), num_classes, 0)
            table[part] = learner.procedure.scores(model, point, num_classes)[0].numpy()
        tables.append(table)
    found = {}
    for relabelling in product(range(num_classes), repeat=n):
        scores = np.stack(
            [
                table[tuple(relabelling[i] for i in points.tolist())]
                for table, points in zip(tables, voters, strict=True)
            ]
        )
        first = np.bincount(scores.argmax(1), minlength=num_classes)
        winner = int(first.argmax())
        if learner.election == "run_off" and num_classes > 1:
            one, two = sorted(sorted(range(num_classes), key=lambda label: (-first[label], label))[:2])
            winner = one if 2 * (scores[:, one] >= scores[:, two]).sum() >= len(scores) else two
        found[relabelling] = winner
    return found


SETTINGS = [
    {"parts": 3},
    {"parts": 7},
    {"parts": 3, "election": "run_off"},
    {"parts": 2, "spread": 2},
    {"parts": 2, "spread": 3, "election": "run_off"},
    {"parts": 1},
    {"parts": 1, "ridge": True},
    {"parts": 3, "ridge": True},
    {"parts": 7, "ridge": True},
    {"parts": 2, "ridge": True, "dealing": "clusters"},
    {"parts": 3, "ridge": True, "own_radii": False},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_no_relabelling_within_the_radius_changes_the_prediction(setting: dict[str, Any]) -> None:
    ridge = setting.get("ridge", False)
    arguments = {"dealing": "order", **{name: value for name, value in setting.items() if name != "ridge"}}
    n, num_classes, positive = 6 if setting["parts"] == 1 else 7, 3, 0
    for trial in range(6 if ridge else 12):
        stream = torch.Generator().manual_seed(trial)
        labels = torch.randint(num_classes, (n,), generator=stream)
        labels = torch.where(torch.rand(n, generator=stream) < 0.6, 0, labels)
        inputs = torch.eye(3)[labels] + 0.3 * torch.randn(n, 3, generator=stream)
        base = CertifiedRidge(RawFeatures(), 0.5) if ridge else Erratic([0.5, 2.0, 4.0][trial % 3], trial)
        learner = PartitionAggregation(base, features=RawFeatures(), **arguments)
        labels = learner.fit(inputs, labels, num_classes).labels  # in the order of its training sets
        point = torch.eye(3)[:1] + 0.3 * torch.randn(1, 3, generator=stream)
        certificate = learner.certify(point)
        found = predictions_of_all_relabellings(learner, point, labels)
        assert certificate.prediction.item() == found[tuple(labels.tolist())]
        for relabelling, prediction in found.items():
            if prediction != certificate.prediction.item():
                changes = (torch.tensor(relabelling) != labels).sum().item()
                assert changes > certificate.radius.item(), (trial, relabelling)
        positive += certificate.radius.item() > 0
    assert positive > 0 or setting == {"parts": 1}  # one voter, and no certificate of its own


def test_own_certificates_only_enlarge_the_radius_and_one_part_is_the_learner_itself() -> None:
    base = CertifiedRidge(RawFeatures(), 0.3)
    plain, priced = (
        PartitionAggregation(base, parts=20, features=RawFeatures(), own_radii=own).fit(
            IMAGES[:1400], LABELS[:1400], 10
        )
        for own in (False, True)
    )
    without, with_prices = plain.certify(IMAGES[1400:]), priced.certify(IMAGES[1400:])
    assert torch.equal(without.prediction, with_prices.prediction)
    assert (with_prices.radius >= without.radius).all()
    assert with_prices.radius.double().mean() > 1.2 * without.radius.double().mean()
    alone = PartitionAggregation(base, parts=1, features=RawFeatures()).fit(IMAGES[:300], LABELS[:300], 10)
    expected = CertifiedRidge(RawFeatures(), 0.3).fit(IMAGES[:300], LABELS[:300], 10).certify(IMAGES[1400:])
    assert torch.equal(alone.certify(IMAGES[1400:]).radius, expected.radius)


class AllOrNothing(TrainingProcedure):
    """Predicts class 0 unless every label is 1: on n labels 0 its radius is n - 1, and n changes do alter it."""

    certified = True

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> Tensor:
        return labels

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        return torch.nn.functional.one_hot(model.min().expand(len(inputs)), num_classes).double()

    def certify(self, model: Any, inputs: Tensor) -> LabelFlipCertificate:
        prediction = model.min().expand(len(inputs))
        needed = (model == 0).sum() if int(model.min()) == 0 else torch.tensor(1)
        return LabelFlipCertificate(prediction, (needed - 1).expand(len(inputs)))

    def describe(self) -> str:
        return "class 0 unless all labels are 1"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_part_all_of_whose_labels_change_votes_for_what_it_likes(size: int) -> None:
    """A voter of n labels that withstands n - 1 changes costs n: it is within reach, and not out of it."""
    learner = PartitionAggregation(AllOrNothing(), parts=3, features=RawFeatures(), dealing="order")
    learner.fit(torch.arange(3.0 * size)[:, None], torch.zeros(3 * size, dtype=torch.int64), 2)
    # two of three voters for class 1 take all their labels
    assert learner.certify(torch.zeros(1, 1)).radius.tolist() == [2 * size - 1]


def test_a_part_that_nothing_moves_is_out_of_reach() -> None:
    learner = PartitionAggregation(CertifiedRidge(RawFeatures()), parts=2, features=RawFeatures())
    learner.fit(torch.eye(4), torch.zeros(4, dtype=torch.int64), 1)
    assert learner.certify(torch.eye(4)).radius.tolist() == [4] * 4


@pytest.mark.parametrize("dealing", ["hash", "order", "clusters"])
def test_parts_are_even_repeatable_and_see_no_label(dealing: Any) -> None:
    parts = deal_parts(IMAGES[:500], 30, dealing, seed=3)
    assert sorted(set(parts.bincount().tolist())) == [16, 17]
    assert torch.equal(parts, deal_parts(IMAGES[:500], 30, dealing, seed=3))
    assert not torch.equal(parts, deal_parts(IMAGES[:500], 30, dealing, seed=4))


def test_the_hash_finds_a_point_wherever_it_stands() -> None:
    turned = deal_parts(IMAGES[:500].flip(0), 30).flip(0)
    assert (turned == deal_parts(IMAGES[:500], 30)).double().mean() > 0.95  # but for equal images


def test_clusters_give_every_part_points_of_all_kinds() -> None:
    def kinds(dealing: Any) -> float:
        parts = deal_parts(IMAGES[:1400], 70, dealing)
        return float(np.mean([len(LABELS[:1400][parts == part].unique()) for part in range(70)]))

    assert kinds("clusters") > kinds("order") + 0.5


def test_every_part_has_its_users_and_every_voter_its_parts() -> None:
    users = users_of_parts(12, 4, seed=1)
    assert all(len(set(row)) == 4 for row in users.tolist())
    assert users.flatten().bincount(minlength=12).tolist() == [4] * 12
    assert users_of_parts(1, 1).tolist() == [[0]]


def test_any_classifier_can_vote() -> None:
    base = SklearnTraining("sklearn.neighbors.KNeighborsClassifier", {"n_neighbors": 1})
    for setting in ({}, {"spread": 3}, {"election": "run_off"}):
        learner = PartitionAggregation(base, parts=20, features=PCAFeatures(20), **setting)
        certificate = learner.fit(IMAGES[:1400], LABELS[:1400], 10).certify(IMAGES[1400:])
        right = certificate.prediction == LABELS[1400:]
        assert right.double().mean() > 0.85
        assert (right & (certificate.radius >= 3)).double().mean() > 0.6


def test_words_tell_what_votes_on_what_and_how_far_it_reaches() -> None:
    learner = PartitionAggregation(parts=40, spread=2, features=RawFeatures(), election="run_off")
    text = learner.fit(IMAGES[:100], LABELS[:100], 10).guarantee()
    for words in ("run-off election of 80 learners", "each used by 2", "ridge regression", "hash", "end-to-end"):
        assert words in text
    assert "priced" not in text
    assert "priced by their own certificates" in PartitionAggregation().describe()
    frozen = CertifiedRidge(FrozenFeatures(torch.nn.Flatten()))
    assert PartitionAggregation(frozen, features=RawFeatures()).reach == "not end-to-end, the head only"
    assert LearnerTraining(frozen).end_to_end is False


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(UserError, match="dealing must be one of order, hash, clusters, got cards"):
        PartitionAggregation(dealing="cards")
    with pytest.raises(UserError, match="election must be one of plurality, run_off"):
        PartitionAggregation(election="lottery")
    with pytest.raises(UserError, match="at most the number of training points, got 4 for 3 different points"):
        deal_parts(torch.eye(3), 4)
    with pytest.raises(UserError, match="spread must be at most the number of points, got 9"):
        PartitionAggregation(spread=9, features=RawFeatures()).fit(torch.eye(3), torch.arange(3), 3)
    with pytest.raises(UserError, match="spread must be at most the number of parts"):
        users_of_parts(2, 3)


def test_more_parts_than_points_are_one_point_each() -> None:
    learner = PartitionAggregation(parts=3000, features=RawFeatures()).fit(IMAGES[:50], LABELS[:50], 10)
    assert "50 learners" in learner.describe()
    assert len(learner.certify(IMAGES[50:60])) == 10


def test_points_do_not_depend_on_who_is_certified_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = PartitionAggregation(parts=9, features=RawFeatures()).fit(IMAGES[:300], LABELS[:300], 10)
    whole = learner.certify(IMAGES[300:340])
    seen: list[int] = []
    monkeypatch.setattr("lightning_poison.certificates.partitions.aggregation._BYTES_AT_ONCE", 9 * 6 * 7)
    parts = learner.certify_features(learner.transform(IMAGES[300:340]), seen.append)
    assert torch.equal(whole.radius, parts.radius)
    assert sum(seen) == 40


@pytest.mark.parametrize(
    "base",
    [
        MonteCarloSmoothing(CertifiedRidge(RawFeatures()), q=0.2, runs=30, alpha=0.3),
        SmoothedRidge(RawFeatures(), q=0.1),
    ],
)
def test_votes_are_not_priced_by_certificates_that_do_not_hold_for_a_refit_with_certainty(base: Any) -> None:
    # "Each certificate is a proof" would be wrong: one holds with a probability, one for the class of a smoothed vote.
    learner = PartitionAggregation(base, parts=2, features=RawFeatures())
    assert not learner.own_radii
    inputs, labels = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    assert int(learner.fit(inputs, labels, 2).certify(inputs[:5]).radius.max()) <= 1
    assert PartitionAggregation(CertifiedRidge(RawFeatures())).own_radii
