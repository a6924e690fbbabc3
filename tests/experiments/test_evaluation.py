from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from lightning_poison._lightning import lightning_packages
from lightning_poison.attacks import FGSM, LBFGS, PGD, SubstituteTransfer
from lightning_poison.datamodules import Digits
from lightning_poison.errors import UserError
from lightning_poison.experiments.evaluation import Evaluation
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.progress import no_progress
from lightning_poison.functional.random_streams import generator
from tests.experiments.experiment_runs import run


def subject_of(points: int = 200, classes: int = 3, low: float = 0.4, high: float = 0.6) -> Subject:
    stream = generator(0, "points")
    inputs = low + (high - low) * torch.rand(points, 5, generator=stream)
    labels = torch.arange(points) % classes
    return Subject(inputs, labels, inputs, labels, classes, "fingerprint", "digest")


def linear(classes: int = 3) -> nn.Linear:
    net = nn.Linear(5, classes)
    stream = generator(0, "weights")
    net.weight.data = torch.randn(classes, 5, generator=stream)
    net.bias.data = -net.weight.data.sum(dim=1) / 2
    return net


class Noise(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores + self.size * torch.randn_like(scores)


def reach(net: nn.Linear, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n, K): the l_inf radius at which a linear network takes class j for the label; 0 where it does already."""
    scores = net(inputs).detach()
    gaps = scores.gather(1, labels[:, None]) - scores
    sizes = (net.weight[labels][:, None] - net.weight[None]).abs().sum(dim=2).detach()
    return (gaps / sizes).clamp(min=0).scatter(1, labels[:, None], torch.inf)


def test_untargeted_is_the_distance_to_a_linear_boundary() -> None:
    subject, net, radii = subject_of(), linear(), (0.02, 0.05, 0.1)
    distance = reach(net, subject.inputs, subject.labels).min(dim=1).values
    measured = Evaluation(PGD(steps=20), radii).measure(net, subject)
    right = net(subject.inputs).argmax(dim=1) == subject.labels
    assert measured["natural"] == pytest.approx(float(right.double().mean()))
    assert measured["attacked"] == 200
    assert measured["withstood"] == {f"{r:g}": int((right & (distance > r)).sum()) for r in radii}
    assert 0 < measured["withstood"]["0.05"] < int(right.sum())


def test_targeted_counts_only_the_points_of_the_source_that_reach_the_target() -> None:
    subject, net = subject_of(classes=2), linear(2)
    distance = reach(net, subject.inputs, subject.labels)
    rows = subject.labels == 1
    measured = Evaluation(PGD(steps=20), (0.05,), source=1, target=0).measure(net, subject)
    already = net(subject.inputs).argmax(dim=1) == 0
    assert measured["attacked"] == int(rows.sum())
    assert measured["withstood"] == {"0.05": int((rows & ~already & (distance[:, 0] > 0.05)).sum())}
    every = Evaluation(PGD(steps=20), (0.05,), target=0).measure(net, subject)
    assert every == measured  # points of the target are left out
    following = Evaluation(PGD(steps=20), (0.05,), target="next").measure(net, subject)
    there = net(subject.inputs).argmax(dim=1) != subject.labels
    assert following["withstood"] == {"0.05": int((~there & (distance.min(dim=1).values > 0.05)).sum())}


def test_next_goes_round_the_clean_classes() -> None:
    subject = subject_of(classes=3)
    net = linear(4)  # one class more than the data: nobody's next class
    net.bias.data[3] = -100.0
    measured = Evaluation(PGD(steps=20), (0.05,), source=2, target="next").measure(net, subject)
    aimed = Evaluation(PGD(steps=20), (0.05,), source=2, target=0).measure(net, subject)
    assert measured == aimed


def test_some_points_are_drawn_once_and_for_all() -> None:
    subject = subject_of()
    rows = Evaluation(PGD(), (0.1,), source=1, target=2, max_test_samples=20).rows(subject)
    assert len(rows) == 20
    assert (subject.test_labels[rows] == 1).all()
    assert torch.equal(rows, rows.unique())
    assert torch.equal(rows, Evaluation(FGSM(), (0.3,), source=1, target=2, max_test_samples=20).rows(subject))
    more = Evaluation(PGD(), (0.1,), source=1, target=2, max_test_samples=21).rows(subject)
    assert set(rows.tolist()) < set(more.tolist())
    assert rows.max() > 150
    assert len(Evaluation(PGD(), (0.1,), max_test_samples=10_000).rows(subject)) == 200


def test_accuracy_never_rises_with_the_radius_and_order_and_own_radius_do_not_matter() -> None:
    subject, net = subject_of(), linear()
    first = Evaluation(PGD(steps=3), (0.1, 0.02, 0.05))
    assert first == Evaluation(PGD(eps=0.7, steps=3), (0.02, 0.05, 0.1, 0.1))
    counts = list(first.measure(net, subject)["withstood"].values())
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "share of 7 test points that keep their label (PGD, linf, 40 steps, worst case over cross_entropy and"),
        ({"target": "next"}, "7 test points that are not driven to the next class (PGD"),
        ({"source": 1, "target": 2}, "7 test points of class 1 that are not driven to class 2 (PGD"),
        ({"attack": FGSM()}, "that keep their label (FGSM, linf)."),
    ],
)
def test_it_says_what_it_measures(arguments, words: str) -> None:
    assert words in Evaluation(**{"attack": PGD(), "eps": (0.1,), **arguments}).in_words(7)


@pytest.mark.filterwarnings("ignore::lightning_poison.attacks.StochasticVictimWarning")
def test_a_network_with_noise_is_not_judged_by_the_luckiest_radius() -> None:
    subject, net = subject_of(), linear()
    noisy = nn.Sequential(net, Noise(0.3))
    radii = tuple(1e-7 * (1 + place) for place in range(8))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shares = torch.stack([noisy(subject.inputs).argmax(dim=1) == subject.labels for _ in range(2000)])
        share = shares.double().mean(dim=0).detach()
        withstood = Evaluation(PGD(steps=2), radii).measure(noisy, subject)["withstood"]
    error = float((share * (1 - share)).sum().sqrt())
    assert error > 4
    assert list(withstood.values()) == pytest.approx([float(share.sum())] * 8, abs=4 * error)


def test_nobody_is_left_to_attack() -> None:
    subject, net = subject_of(), linear()
    assert Evaluation(PGD(steps=20), (0.5, 0.9)).measure(net, subject)["withstood"] == {"0.5": 0, "0.9": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"eps": ()}, "at least one radius"),
        ({"eps": (8.0,)}, "must lie in"),
        ({"eps": (0.1, 0.3, 0.10000001)}, r"must differ in their first six digits, got \[0.1, 0.10000001, 0.3\]"),
        ({"source": 1}, "needs target"),
        ({"source": 1, "target": 1}, "another class"),
        ({"target": "previous"}, "one of next"),
        ({"max_test_samples": 0}, "at least 1"),
        ({"attack": LBFGS()}, "must have a radius"),
        ({"attack": SubstituteTransfer()}, "no inputs of its own"),
    ],
)
def test_refused_arguments(arguments, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Evaluation(**{"attack": PGD(), "eps": (0.1,), **arguments})


@pytest.mark.parametrize(
    ("arguments", "words"), [({"source": 7, "target": 0}, "3 classes"), ({"target": 3}, "3 classes")]
)
def test_refused_by_the_data(arguments, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Evaluation(PGD(), (0.1,), **arguments).rows(subject_of())


@pytest.mark.parametrize("arguments", [{}, {"source": 1, "target": 2}, {"target": "next"}, {"max_test_samples": 1}])
def test_test_labels_of_a_class_that_training_lacks_are_refused(arguments) -> None:
    subject = subject_of()
    strange = dataclasses.replace(subject, test_labels=torch.where(torch.arange(200) == 150, 3, subject.test_labels))
    with pytest.raises(UserError, match="test labels must be among the 3 classes of the training data, got 3"):
        Evaluation(PGD(), (0.1,), **arguments).rows(strange)


def test_a_subject_is_the_data_module_s_data() -> None:
    data = Digits(classes=[3, 5], val_split=0.2)
    subject = Subject.of(data, no_progress)
    training, test = data.train_dataloader().dataset, data.test_dataloader().dataset
    for inputs, labels, dataset in (
        (subject.inputs, subject.labels, training),
        (subject.test_inputs, subject.test_labels, test),
    ):
        assert torch.equal(inputs, torch.stack([item[0] for item in dataset]))
        assert labels.tolist() == [item[1] for item in dataset]
    assert subject.num_classes == 2
    training_set = subject.training_set()
    assert training_set.inputs is subject.inputs
    again = pickle.loads(pickle.dumps(subject))
    assert all(torch.equal(getattr(again, n), getattr(subject, n)) for n in ("inputs", "labels", "test_inputs"))
    assert (again.digest, again.fingerprint, again.num_classes) == (subject.digest, subject.fingerprint, 2)
    assert Subject.of(Digits(classes=[3, 5], val_split=0.2), no_progress).digest == subject.digest
    assert Subject.of(Digits(classes=[3, 5], val_split=0.2, seed=1), no_progress).digest != subject.digest


@pytest.mark.parametrize("package", lightning_packages(), ids=lambda package: package.__name__)
def test_anybody_s_data_module(package) -> None:
    inputs, labels = torch.rand(12, 3), torch.arange(12) % 4

    class Own(package.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(inputs, labels), shuffle=True)

        def test_dataloader(self):
            return [DataLoader(TensorDataset(inputs / 2, labels))]

    subject = Subject.of(Own(), no_progress)
    assert torch.equal(subject.inputs, inputs)
    assert torch.equal(subject.test_inputs, inputs / 2)
    assert subject.num_classes == 4


class Own(lightning_packages()[0].LightningDataModule):
    """Twelve training points of four classes, and test points."""

    def __init__(self, train, test, labels=None) -> None:
        super().__init__()
        self.train, self.test = train, test
        self.labels = torch.arange(12) % 4
        self.test_labels = self.labels if labels is None else labels

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.train, self.labels))

    def test_dataloader(self):
        return None if self.test is None else DataLoader(TensorDataset(self.test, self.test_labels[: len(self.test)]))


@pytest.mark.parametrize("arguments", [{}, {"source": 0, "target": 1}])
def test_an_experiment_refuses_strange_test_labels_before_anything_is_trained(tmp_path, trained, arguments) -> None:
    strange = Own(torch.rand(12, 3), torch.rand(12, 3), labels=torch.arange(12) % 5)
    with pytest.raises(UserError, match="among the 4 classes of the training data, got 4; take such points out"):
        run(tmp_path / "new", data=strange, **arguments)
    assert trained == []
    assert not (tmp_path / "new").exists()


def test_refused_data() -> None:
    inputs = torch.rand(12, 3)
    holed = inputs.clone()
    holed[7, 1] = torch.nan
    for train, test, words in (
        (inputs, None, "test_dataloader must return"),
        (2 * inputs + 1, inputs, "training inputs must lie"),
        (inputs, inputs - 1, "test inputs must lie"),
        (inputs, inputs[:, :2], "one shape"),
        (holed, inputs, "got NaN or infinity at training point 7"),
        (inputs, holed, "got NaN or infinity at test point 7"),
        (inputs, inputs[:0], "the test set is empty"),
    ):
        with pytest.raises(UserError, match=words):
            Subject.of(Own(train, test), no_progress)


def test_only_what_the_loaders_yield_is_read():
    inputs, labels = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    whole = TensorDataset(inputs, labels)

    class Split(lightning_packages()[0].LightningDataModule):
        def train_dataloader(self):
            return DataLoader(whole, 4, sampler=SubsetRandomSampler(range(0, 20, 3)))

        def test_dataloader(self):
            return DataLoader(whole, 4, sampler=[19, 4])

    subject = Subject.of(Split(), no_progress)
    assert subject.inputs.equal(inputs[::3])
    assert subject.labels.equal(labels[::3])
    assert subject.test_inputs.equal(inputs[[4, 19]])
