"""Flip attacks on logistic regression: every success is a refitted one, and enumeration finds nothing fewer by much."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lightning_poison.certificates.undefended import (
    FlipAttacks,
    LogisticFits,
    UndefendedLogistic,
    distance_attack,
    influence_attack,
    reverse_pass,
)
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator


def peer(features: torch.Tensor, labels: torch.Tensor, strength: float = 1.0) -> np.ndarray:
    """Scikit-learn's coefficients, intercept last and penalised like the others."""
    inputs = np.pad(features.double().numpy(), ((0, 0), (0, 1)), constant_values=1.0)
    model = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
    return model.fit(inputs, labels.numpy()).coef_[0]


def predicted(features: torch.Tensor, labels: torch.Tensor, point: torch.Tensor) -> int:
    if len(labels.unique()) == 1:
        return int(labels[0])
    return int(np.append(point.double().numpy(), 1.0) @ peer(features, labels) > 0)


def clouds(seed: int, n: int, dimensions: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = generator(seed, "clouds")
    labels = (torch.arange(n) % 2).long()
    centre = torch.ones(dimensions)
    features = torch.randn(n, dimensions, generator=stream) + torch.where(labels[:, None] == 1, centre, -centre)
    return features, labels, torch.randn(4, dimensions, generator=stream) * 1.5


def digits(one: int, other: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    chosen = np.isin(data.target, (one, other))
    return torch.tensor(data.data[chosen] / 16), torch.tensor(data.target[chosen] == other).long()


def test_fits_of_several_label_vectors_equal_scikit_learn() -> None:
    features, labels, _ = clouds(0, 60, 3)
    several = torch.stack([labels.bool(), labels.bool().roll(1), labels.bool().roll(7)], dim=1)
    inputs = torch.nn.functional.pad(features.double(), (0, 1), value=1.0)
    fits = LogisticFits(inputs, several, 0.5)
    for column in range(3):
        expected = peer(features, several[:, column].long(), 0.5)
        np.testing.assert_allclose(fits.coefficients[:, column], expected, atol=1e-6)
    fits.labels[:20] ^= True
    fits.refit()
    np.testing.assert_allclose(fits.coefficients[:, 1], peer(features, fits.labels[:, 1].long(), 0.5), atol=1e-6)


def test_separable_data_of_any_scale_are_fitted() -> None:
    inputs = torch.tensor([[-1e4], [-1e3], [1e-3], [1e4]], dtype=torch.float64)
    fits = LogisticFits(inputs, torch.tensor([[False], [False], [True], [True]]), 1e-6)
    assert ((inputs @ fits.coefficients > 0)[:, 0].tolist()) == [False, False, True, True]


@pytest.mark.parametrize("seed", range(3))
def test_attacks_against_all_relabellings(seed: int) -> None:
    """A model of its own for each of the 2^12 label vectors."""
    features, labels, points = clouds(seed, 12, 2)
    inputs, ends = (torch.nn.functional.pad(part.double(), (0, 1), value=1.0) for part in (features, points))
    every = torch.tensor(list(product([False, True], repeat=12))).T
    sides = ends @ LogisticFits(inputs, every, 1.0).coefficients > 0
    changes = (every != labels.bool()[:, None]).sum(0)
    attacks = UndefendedLogistic(max_flips=12).fit_features(features, labels).attack(points)
    for row, point in enumerate(points):
        before = predicted(features, labels, point)
        assert attacks.prediction[row] == before
        fewest = int(changes[sides[row] != bool(before)].min())
        assert fewest <= attacks.flips[row] <= fewest + 1
        changed = labels.clone()
        changed[attacks.index[row]] ^= 1
        assert len(attacks.index[row]) == attacks.flips[row]
        assert predicted(features, changed, point) != before


def test_each_attack_and_its_reverse_pass_change_the_refitted_prediction() -> None:
    features, labels = digits(1, 7)
    train, points = slice(0, 250), features[250:262].double()
    inputs = torch.nn.functional.pad(features[train].double(), (0, 1), value=1.0)
    ends = torch.nn.functional.pad(points, (0, 1), value=1.0)

    def refitted(several: torch.Tensor) -> LogisticFits:
        return LogisticFits(inputs, several, 1.0)

    clean = labels[train].bool()[:, None].expand(-1, 12).clone()
    found = {
        "influence": influence_attack(refitted(clean), ends, 200, 1),
        "five at a time": influence_attack(refitted(clean), ends, 200, 5),
        "distance": distance_attack(refitted(clean), ends, 200),
    }
    sizes = {}
    for name, flips in found.items():
        shorter = reverse_pass(refitted, clean[:, 0], ends, flips)
        for index, fewer, point in zip(flips, shorter, points, strict=True):
            assert set(fewer.tolist()) <= set(index.tolist())
            for part in (index, fewer):
                changed = labels[train].clone()
                changed[part] ^= 1
                assert predicted(features[train], changed, point) != predicted(features[train], labels[train], point)
        sizes[name] = (sum(map(len, flips)), sum(map(len, shorter)))
    assert sizes["influence"][0] < sizes["distance"][0]
    assert sizes["five at a time"][1] <= sizes["five at a time"][0]
    assert sizes["five at a time"][1] < 1.3 * sizes["influence"][0]


def test_the_influence_is_the_derivative_of_a_refitted_logit() -> None:
    """One flip of a heavily penalised model: the estimate ranks labels as refitting each of them does."""
    features, labels, points = clouds(5, 40, 3)
    inputs, ends = (torch.nn.functional.pad(part.double(), (0, 1), value=1.0) for part in (features, points[:1]))
    fits = LogisticFits(inputs, labels.bool()[:, None].repeat(1, 40) ^ torch.eye(40, dtype=torch.bool), 10.0)
    logits = (ends @ fits.coefficients)[0]
    before = logits.new_tensor(float(ends[0] @ torch.tensor(peer(features, labels, 10.0))))
    best = (logits - before).mul(-1 if before > 0 else 1).argmax()
    chosen = influence_attack(LogisticFits(inputs, labels.bool()[:, None], 10.0), ends, 20, 1)[0]
    assert int(best) in chosen.tolist()


def test_a_point_that_no_flip_can_change_counts_as_n_plus_one() -> None:
    features, labels, _ = clouds(1, 20, 2)
    attacks = UndefendedLogistic(max_flips=1).fit_features(features, labels).attack(torch.full((1, 2), 3.0))
    assert attacks.flips.tolist() == [21]
    assert attacks.accuracy(torch.tensor([1]), [0, 1, 20]).tolist() == [1.0, 1.0, 1.0]


def test_accuracy_falls_with_the_flips() -> None:
    features, labels = digits(3, 8)
    seen: list[int] = []
    attacks = (
        UndefendedLogistic(step=2).fit_features(features[:200], labels[:200]).attack(features[200:230], seen.append)
    )
    shares = attacks.accuracy(labels[200:230], [0, 5, 20, 100]).tolist()
    assert shares[0] > 0.9
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.2
    assert sum(seen) == len(attacks) == 30


def test_a_prediction_counts_up_to_the_flip_that_changes_it() -> None:
    attacks = FlipAttacks(torch.tensor([1, 1, 0]), torch.tensor([3, 9, 1]), [torch.empty(0)] * 3)
    assert attacks.accuracy(torch.tensor([1, 0, 0]), [0, 1, 2, 3]).mul(3).round().tolist() == [2, 1, 1, 0]


def test_errors_are_one_clear_line() -> None:
    model = UndefendedLogistic()
    with pytest.raises(UserError, match="must be fitted before attack"):
        model.attack(torch.ones(1, 2))
    with pytest.raises(UserError, match="num_classes must be 2"):
        model.fit_features(torch.ones(2, 2), torch.tensor([0, 1]), 3)
    with pytest.raises(UserError, match="features must match"):
        model.fit_features(torch.ones(2, 2), torch.tensor([0, 1, 1]))
    with pytest.raises(UserError, match="step must be"):
        UndefendedLogistic(step=0)
    one_class = model.fit_features(torch.ones(3, 2), torch.tensor([1, 1, 1])).attack(torch.ones(1, 2))
    assert one_class.prediction.tolist() == [1]
    assert len(model.attack(torch.ones(0, 2))) == 0


def test_more_features_than_points_change_nothing() -> None:
    stream = torch.Generator().manual_seed(5)
    features, points = (torch.randn(count, 4, generator=stream).double() for count in (14, 9))
    labels = torch.arange(14) % 2
    wider = torch.linalg.qr(torch.randn(30, 4, generator=stream).double()).Q.T
    narrow = UndefendedLogistic().fit_features(features, labels).attack(points)
    wide = UndefendedLogistic().fit_features(features @ wider, labels).attack(points @ wider)
    assert wide.flips.equal(narrow.flips)
    assert wide.prediction.equal(narrow.prediction)
    assert 1 < narrow.flips.double().mean() < 14
