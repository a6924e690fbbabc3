"""Several predictions under one budget: both bounds against enumeration, the upper one against a linear program."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.datasets import load_digits

from lightning_poison.certificates import CertifiedRidge, RawFeatures, certify_label_linear
from lightning_poison.certificates.collective import certify_together
from lightning_poison.certificates.learners import KernelVotes
from lightning_poison.errors import UserError


def most_changed(weights: np.ndarray, labels: np.ndarray, classes: int) -> list[int]:
    """For each budget 0..n the largest number of predictions that some relabelling changes."""
    n = len(labels)
    every = np.array(list(product(range(classes), repeat=n)))
    scores = np.stack([(every == c) @ weights.T for c in range(classes)], axis=2)
    changes = (every != labels).sum(1)
    prediction = scores.argmax(2)
    broken = (prediction != prediction[changes == 0]).sum(1)
    return [int(broken[changes <= budget].max()) for budget in range(n + 1)]


@pytest.mark.parametrize("seed", range(4))
def test_no_relabelling_changes_more_and_some_changes_as_many(seed: int) -> None:
    draw = np.random.default_rng(seed)
    gaps, cases, best_found = 0, 0, 0
    for _ in range(40):
        classes = int(draw.integers(2, 4))
        n, points = int(draw.integers(1, 9 if classes == 2 else 7)), int(draw.integers(1, 9))
        labels = draw.integers(0, classes, n)
        weights = (
            draw.integers(-2, 6, (points, n)).astype(float) if draw.random() < 0.5 else draw.normal(0.3, 1, (points, n))
        )
        truth = most_changed(weights, labels, classes)
        for budget in range(n + 1):
            certificate = certify_together(torch.tensor(weights), torch.tensor(labels), classes, budget, steps=60)
            assert certificate.at_least <= truth[budget] <= certificate.at_most <= points
            assert len(certificate.index) <= budget
            cases += 1
            gaps += certificate.at_most - truth[budget]
            best_found += certificate.at_least == truth[budget]
    assert gaps / cases < 1.5
    assert best_found / cases > 0.7


def relaxation(weights: np.ndarray, labels: np.ndarray, budget: int) -> float:
    """The linear program that the upper bound is the dual of, two classes, written down from its description."""
    sign = np.where(labels == 0, 1.0, -1.0)
    margins = weights @ sign
    gains = 2 * np.maximum(weights * sign * np.sign(margins)[:, None], 0)
    points, n = weights.shape
    share = np.minimum(gains / np.abs(margins)[:, None], 1)
    # variables: c (points), z (n); maximise sum c
    matrix = np.vstack([np.hstack([np.eye(points), -share]), np.r_[np.zeros(points), np.ones(n)][None]])
    result = linprog(np.r_[-np.ones(points), np.zeros(n)], matrix, np.r_[np.zeros(points), budget], bounds=(0, 1))
    return -result.fun


@pytest.mark.parametrize("budget", [3, 10, 25])
def test_the_bound_is_nearly_the_relaxation_that_it_is_the_dual_of(budget: int) -> None:
    draw = np.random.default_rng(budget)
    labels = draw.integers(0, 2, 80)
    weights = draw.normal(0, 1, (40, 80)) + 0.8 * np.where(labels == 0, 1, -1) * draw.choice([-1, 1], (40, 1))
    radius = certify_label_linear(torch.tensor(weights), torch.tensor(labels), 2).radius
    exposed = weights[(radius < budget).numpy()]
    optimum = relaxation(exposed, labels, budget)
    found = certify_together(torch.tensor(weights), torch.tensor(labels), 2, budget, steps=500).at_most
    assert np.floor(optimum * (1 - 1e-9)) <= found <= optimum * 1.05 + 1


def test_one_budget_for_all_is_worth_less_than_one_for_each() -> None:
    digits = load_digits()
    inputs, labels = torch.tensor(digits.data / 16), torch.tensor(digits.target)
    learner = CertifiedRidge(RawFeatures(), 1.0).fit(inputs[:600], labels[:600], 10)
    weights = learner.weights(inputs[600:800])
    radius = certify_label_linear(weights, labels[:600], 10).radius
    before = certify_label_linear(weights, labels[:600], 10).prediction
    for budget in (1, 10, 30):
        certificate = certify_together(weights.split(33), labels[:600], 10, budget)
        assert 0 < certificate.at_least <= certificate.at_most <= int((radius < budget).sum())
        changed = labels[:600].clone()
        changed[certificate.index] = certificate.new_label
        assert int((changed != labels[:600]).sum()) == len(certificate.index) <= budget
        again = CertifiedRidge(RawFeatures(), 1.0).fit(inputs[:600], changed, 10).certify(inputs[600:800])
        assert int((again.prediction != before).sum()) == certificate.at_least
    assert certificate.at_most < int((radius < budget).sum())
    together = learner.certify_together(inputs[600:800], 30)
    assert (together.at_least, together.at_most) == (certificate.at_least, certificate.at_most)


def test_points_that_share_nothing_need_their_own_changes() -> None:
    """Four points with three voters each, two changes for a point: r changes change at most r / 2 of them."""
    weights = torch.block_diag(*[torch.ones(1, 3)] * 4)
    labels = torch.zeros(12, dtype=torch.int64)
    for budget in range(9):
        certificate = certify_together(weights, labels, 2, budget)
        # the linear relaxation counts half-done points; whole numbers are rounded down
        assert certificate.at_least == budget // 2
        assert budget // 2 <= certificate.at_most <= (budget if budget < 2 else int(budget / 1.5))


def test_ties_count_as_changed() -> None:
    certificate = certify_together(torch.zeros(3, 5), torch.tensor([0, 1, 1, 1, 1]), 2, 1)
    assert certificate.at_most == 3
    assert certify_together(torch.zeros(3, 5), torch.tensor([0, 1, 1, 1, 1]), 2, 0).at_most == 0


def test_edges_and_errors() -> None:
    labels = torch.tensor([0, 1, 0])
    assert certify_together(torch.empty(0, 3), labels, 2, 5).at_most == 0
    assert certify_together([], labels, 2, 5).num_points == 0
    one_class = certify_together(torch.ones(2, 3), torch.zeros(3, dtype=torch.int64), 1, 3)
    assert (one_class.at_least, one_class.at_most) == (0, 0)
    more_than_all = certify_together(torch.ones(2, 3), labels, 2, 99)
    assert (more_than_all.at_least, more_than_all.at_most) == (2, 2)
    with pytest.raises(UserError, match="budget must be an integer"):
        certify_together(torch.ones(2, 3), labels, 2, -1)
    with pytest.raises(UserError, match="weights must be finite"):
        certify_together(torch.full((2, 3), float("nan")), labels, 2, 1)
    with pytest.raises(UserError, match="must be fitted"):
        KernelVotes(RawFeatures()).certify_together(torch.ones(1, 2), 1)
