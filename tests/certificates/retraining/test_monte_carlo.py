"""Monte Carlo smoothing: coverage by exact enumeration, radii against every relabelling."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_poison.certificates import CertifiedRidge, PCAFeatures, RawFeatures
from lightning_poison.certificates.retraining import (
    MonteCarloSmoothing,
    SklearnTraining,
    TrainingProcedure,
    certify_counts,
)
from lightning_poison.certificates.smoothing.thresholds import kl_radius, tight_radius
from lightning_poison.errors import UserError

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)


class Table(TrainingProcedure):
    """Any function of the labels: a random table, or the majority for comparison."""

    def __init__(self, salt: int, share: float, n: int, num_classes: int) -> None:
        stream = np.random.default_rng(salt)
        every = np.array(list(product(range(num_classes), repeat=n)))
        majority = np.stack([(every == label).sum(1) for label in range(num_classes)], 1).argmax(1)
        answers = np.where(stream.random(len(every)) < share, stream.integers(num_classes, size=len(every)), majority)
        self.answers = answers.reshape((num_classes,) * n)

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> int:
        return int(self.answers[tuple(labels.tolist())])

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor([model]), num_classes).float().expand(len(inputs), -1)

    def describe(self) -> str:
        return "a table"

    def smoothed(self, q: float) -> np.ndarray:
        """Exact probability of each class under random flips, for every labelling: (K, ..., K, K)."""
        num_classes = self.answers.shape[0]
        noise = np.full((num_classes, num_classes), q / (num_classes - 1))
        np.fill_diagonal(noise, 1 - q)
        found = np.eye(num_classes)[self.answers]
        for axis in range(self.answers.ndim):
            found = np.moveaxis(np.tensordot(noise, found, (1, axis)), 0, axis)
        return found


@pytest.mark.parametrize(("num_classes", "n", "q"), [(2, 11, 0.1), (2, 11, 0.3), (3, 9, 0.2), (4, 5, 0.2)])
@pytest.mark.parametrize("radius", ["tight", "kl"])
def test_the_smoothed_prediction_outlasts_every_relabelling(num_classes: int, n: int, q: float, radius: Any) -> None:
    answered, largest = 0, 0
    for trial in range(8):
        procedure = Table(trial, [0.0, 0.1, 0.3, 0.9][trial % 4], n, num_classes)
        labels = np.random.default_rng(trial).integers(num_classes, size=n) * (trial % 3 == 0)
        learner = MonteCarloSmoothing(procedure, q=q, runs=300, alpha=0.001, radius=radius, seed=trial)
        learner.fit(torch.zeros(n, 1), torch.tensor(labels), num_classes)
        certificate = learner.certify(torch.zeros(1, 1))
        prediction, certified = certificate.prediction.item(), certificate.radius.item()
        answered += certified >= 0
        largest = max(largest, certified)
        within = sum(place != label for place, label in zip(np.indices((num_classes,) * n), labels, strict=True))
        assert (procedure.smoothed(q)[..., prediction][within <= certified] > 0.5).all()
    assert answered > 1
    assert largest >= 1 or radius == "kl"


def failure(trials: int, probabilities: list[float], alpha: float) -> float:
    """Exact probability that the answered class has at most half of the probability, or too large a radius for it."""
    every = np.array([c for c in product(range(trials + 1), repeat=len(probabilities)) if sum(c) == trials])
    certificate = certify_counts(torch.tensor(every), 0.1, alpha, 10**4)
    p = torch.tensor(probabilities, dtype=torch.float64)[certificate.prediction]
    honest = tight_radius(torch.log1p(-p), 0.1, len(probabilities), 10**4)  # what the true probability allows
    lower = torch.tensor(stats.beta.ppf(alpha / 2, every.max(1), trials - every.max(1) + 1))
    wrong = (certificate.radius >= 0) & ((p <= 0.5) | (certificate.radius > honest) | (lower > p))
    return float(stats.multinomial.pmf(every[wrong.numpy()], trials, probabilities).sum())


def worst_trials(alpha: float) -> int:
    """A number of trials at which half of alpha is all but used up by a fair coin."""
    tails = {
        n: max(t for k in range(n + 1) if (t := stats.binom.sf(k - 1, n, 0.5)) <= alpha / 2) for n in range(20, 60)
    }
    return max(tails, key=tails.__getitem__)


def test_the_chance_of_a_wrong_answer_is_at_most_alpha_and_nearly_that() -> None:
    alpha = 0.05
    trials = worst_trials(alpha)
    assert 0.8 * alpha < failure(trials, [0.5, 0.5], alpha) <= alpha
    for p in (0.3, 0.51, 0.6, 0.75, 0.9, 0.99):
        assert failure(trials, [p, 1 - p], alpha) <= alpha
    for several in ([0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [0.4, 0.3, 0.3], [0.7, 0.2, 0.1]):
        assert failure(21, several, alpha) <= alpha


def test_it_abstains_at_the_half_and_no_count_is_certain() -> None:
    counts = torch.tensor([[50, 50], [0, 100], [100, 0], [41, 59]])
    certificate = certify_counts(counts, 0.3, 0.01, 50)
    assert certificate.prediction.tolist() == [0, 1, 0, 1]
    assert certificate.radius[[0, 3]].tolist() == [-1, -1]
    assert 0 <= certificate.radius[1] < 10
    assert certificate.radius[1] == certificate.radius[2]


def test_the_radius_is_that_of_the_bound_of_clopper_and_pearson() -> None:
    counts = torch.tensor([[940, 60, 0], [999, 0, 1], [700, 200, 100]])
    bound = stats.beta.ppf(0.0005, counts[:, 0], 1001 - counts[:, 0])
    error = torch.log1p(-torch.tensor(bound))
    for name, radii in (("tight", tight_radius), ("kl", kl_radius)):
        found = certify_counts(counts, 0.05, 0.001, 10**5, name)  # type: ignore[arg-type]
        expected = radii(error, 0.05, 3, 10**5)
        assert torch.equal(found.radius, expected)


def test_more_points_at_once_cost_radius_and_too_many_are_refused() -> None:
    inputs, labels = IMAGES[:300], (LABELS[:300] >= 5).long()
    base = SklearnTraining("sklearn.naive_bayes.GaussianNB")
    each, together = (
        MonteCarloSmoothing(base, q=0.2, runs=60, alpha=0.01, points=points, features=PCAFeatures(10))
        .fit(inputs, labels, 2)
        .certify(IMAGES[300:350])
        for points in (None, 50)
    )
    assert torch.equal(each.prediction, together.prediction)
    assert (together.radius <= each.radius).all()
    assert (together.radius < each.radius).any()
    with pytest.raises(UserError, match="points must be at least the number of points, got 50 for 51"):
        MonteCarloSmoothing(base, runs=2, points=50).fit(inputs, labels, 2).certify(IMAGES[:51])


def test_it_stays_below_the_exact_certificate_of_the_learner_that_it_smooths() -> None:
    ridge = CertifiedRidge(RawFeatures(), 0.5)
    labels = (LABELS[:200] >= 5).long()
    exact = CertifiedRidge(RawFeatures(), 0.5).fit(IMAGES[:200], labels, 2).certify(IMAGES[200:300])
    learner = MonteCarloSmoothing(ridge, q=0.05, runs=100, features=RawFeatures()).fit(IMAGES[:200], labels, 2)
    seen: list[int] = []
    found = learner.certify_features(learner.transform(IMAGES[200:300]), seen.append)
    assert sum(seen) == 100
    assert len(seen) > 50
    sure = found.radius >= 0
    assert sure.double().mean() > 0.5
    assert torch.equal(found.prediction[sure], exact.prediction[sure])


def test_models_are_trained_once_and_anew_for_new_labels() -> None:
    learner = MonteCarloSmoothing(SklearnTraining("sklearn.naive_bayes.GaussianNB"), runs=5)
    learner.fit(IMAGES[:100], LABELS[:100], 10)
    models = learner.train()
    learner.certify(IMAGES[100:110])
    assert learner.train() is models
    assert learner.fit(IMAGES[:100], LABELS[:100].flip(0), 10).train() is not models
    assert len(learner.certify(IMAGES[:0])) == 0


def test_words_tell_the_probability_and_what_it_is_over() -> None:
    learner = MonteCarloSmoothing(SklearnTraining("sklearn.naive_bayes.GaussianNB"), q=0.1, runs=50, alpha=0.002)
    text = learner.fit(IMAGES[:100], LABELS[:100], 10).guarantee()
    for words in (
        "50 trainings",
        "q = 0.1",
        "GaussianNB",
        "at least 0.998",
        "each point's certificate on its own",
        "seed",
    ):
        assert words in text
    assert "up to 77 points at once" in MonteCarloSmoothing(learner.procedure, points=77).certainty().sentences()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": 0.5}, r"q must be below \(K - 1\) / K = 0.5, got 0.5"),
        ({"q": 0.0}, "q must lie in"),
        ({"alpha": 0.0}, "alpha must lie in"),
        ({"runs": 0}, "runs must be an integer of at least 1"),
        ({"jobs": 0}, "jobs must be an integer of at least 1, got 0; -1 means every core"),
        ({"radius": "huge"}, "radius must be one of tight, kl"),
        ({"procedure": "ridge"}, "procedure must be a TrainingProcedure or a CertifiedLearner, got 'ridge'; make one"),
        ({"cache": 5}, "cache must be the path of a folder, got 5; None keeps models in memory"),
        ({"features": RawFeatures}, r"features must be a LabelFreeFeatures such as RawFeatures\(\), got the class Raw"),
    ],
)
def test_errors_say_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MonteCarloSmoothing(**{"procedure": Table(0, 0.0, 4, 2), **arguments}).fit(
            torch.zeros(4, 1), torch.arange(4) % 2, 2
        )
