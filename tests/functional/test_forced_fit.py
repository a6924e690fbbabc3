from __future__ import annotations

from itertools import permutations

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.functional import kernel_fit
from lightning_poison.functional.kernel_fit import ForcedFit, KernelFit

N, M, CLASSES, NOISE = 9, 4, 3, 0.2
TRAINING = torch.tensor([0, 2, 3, 5, 6, 8])


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of n points and m others (more features than points), and one-hot labels of the training points."""
    stream = torch.Generator().manual_seed(seed)
    points = torch.randn(N, 15, generator=stream, dtype=torch.float64) / 4
    others = torch.randn(M, 15, generator=stream, dtype=torch.float64) / 4
    targets = torch.eye(CLASSES, dtype=torch.float64)[torch.randint(CLASSES, (len(TRAINING),), generator=stream)]
    return points, others, targets


def fitted(seed: int = 0) -> tuple[KernelFit, torch.Tensor]:
    points, others, targets = problem(seed)
    return KernelFit((points @ points.T).float(), TRAINING, targets, NOISE), (others @ points.T).float()


def constrained(targets, forced: dict[int, torch.Tensor], seed: int = 0) -> torch.Tensor:
    """Ridge coefficients B of min |X B - Y|^2 + noise |B|^2 with x_i B = v_i: the linear system of its Lagrangian."""
    points, _, _ = problem(seed)
    rows = points[TRAINING]
    normal = rows.T @ rows + NOISE * torch.eye(15, dtype=torch.float64)
    if not forced:
        return torch.linalg.solve(normal, rows.T @ targets)
    fixed = points[list(forced)]
    zero = torch.zeros(len(forced), len(forced), dtype=torch.float64)
    system = torch.cat([torch.cat([normal, fixed.T], dim=1), torch.cat([fixed, zero], dim=1)])
    right = torch.cat([rows.T @ targets, torch.stack(list(forced.values()))])
    return torch.linalg.solve(system, right)[:15]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), atol=2e-5)


def test_scores_are_ridge_regression():
    fit, kernel = fitted()
    points, others, targets = problem()
    coefficients = constrained(targets, {})
    assert close(fit.scores, points @ coefficients)
    assert close(fit.scores_at(kernel), others @ coefficients)


def test_blocks_do_not_matter(monkeypatch):
    whole, kernel = fitted()
    monkeypatch.setattr(kernel_fit, "_BLOCK", 4)
    parts, _ = fitted()
    assert close(parts.scores, whole.scores)
    assert close(parts.covariance, whole.covariance)
    assert close(parts.covariance_to(kernel), whole.covariance_to(kernel))


def test_covariances_are_those_of_the_weights():
    fit, kernel = fitted()
    points, others, _ = problem()
    rows = points[TRAINING]
    weights = NOISE * torch.linalg.inv(rows.T @ rows + NOISE * torch.eye(15, dtype=torch.float64))
    assert close(fit.covariance, points @ weights @ points.T)
    assert close(fit.covariance_to(kernel), others @ weights @ points.T)


def test_between_training_points_it_is_the_weight_of_a_label():
    fit, _ = fitted()
    _, _, targets = problem()
    for position, point in enumerate(TRAINING):
        moved = targets.clone()
        moved[position, 0] += 1
        points = problem()[0]
        change = (points @ (constrained(moved, {}) - constrained(targets, {})))[:, 0]
        assert close(NOISE * change, fit.covariance[:, point])


@pytest.mark.parametrize("points", [[2], [1], [2, 5], [1, 5, 8], [5, 1, 4, 0]])
def test_forcing_is_ridge_regression_under_constraints(points):
    fit, kernel = fitted()
    forced = ForcedFit(fit)
    forced.watch(kernel)
    drawn = torch.randn(len(points), CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values = dict(zip(points, drawn, strict=True))
    for point, value in values.items():
        forced.force(point, value)
    inputs, others, targets = problem()
    coefficients = constrained(targets, values)
    assert close(forced.scores, inputs @ coefficients)
    assert close(forced.scores[points], torch.stack(list(values.values())))
    assert close(forced.outer_scores, others @ coefficients)
    assert close(others @ inputs.T @ forced.coefficients(), others @ coefficients)
    assert forced.forced == points


@pytest.mark.parametrize("start", [[], [3], [3, 1]])
def test_ratios_foretell_what_forcing_does(start):
    fit, kernel = fitted()
    values = torch.randn(N, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for point in (0, 4, 7):
        forced = ForcedFit(fit)
        forced.watch(kernel)
        for earlier in start:
            forced.force(earlier, values[earlier])
        ratios, missing = forced.ratios(torch.tensor([point])), values[point] - forced.scores[point]
        expected = forced.outer_scores + ratios.double() * missing
        forced.force(point, values[point])
        assert close(forced.outer_scores, expected)


def test_the_first_step_is_the_label_s_weight_over_its_leverage():
    """The smallest change t of label i with f(x_i) = -y_i is (-y_i - f_i) / H_ii; it moves x by hat_i(x) t."""
    points, others, _ = problem()
    labels = torch.tensor([1.0, -1, 1, 1, -1, -1], dtype=torch.float64)
    rows = points[TRAINING]
    solve = torch.linalg.inv(rows.T @ rows + NOISE * torch.eye(15, dtype=torch.float64)) @ rows.T
    leverage, hat = rows @ solve, others @ solve
    fit = KernelFit((points @ points.T).float(), TRAINING, labels[:, None], NOISE)
    forced = ForcedFit(fit)
    forced.watch((others @ points.T).float())
    for position, point in enumerate(TRAINING):
        change = (-labels[position] - leverage[position] @ labels) / leverage[position, position]
        one = forced.ratios(point[None])[:, 0].double() * (-labels[position] - fit.scores[point, 0])
        assert close(one, hat[:, position] * change)


def test_the_order_does_not_matter():
    ends = []
    for order in permutations([0, 1, 4]):
        fit, kernel = fitted()
        forced = ForcedFit(fit)
        forced.watch(kernel)
        for point in order:
            forced.force(point, torch.full((CLASSES,), float(point)))
        ends.append(torch.cat([forced.scores, forced.outer_scores]))
    assert all(close(end, ends[0]) for end in ends)


def test_watching_later_is_watching_from_the_start():
    fit, kernel = fitted()
    early, late = ForcedFit(fit), ForcedFit(fit)
    early.watch(kernel)
    for point in (3, 7):
        early.force(point, torch.ones(CLASSES))
        late.force(point, torch.ones(CLASSES))
    late.watch(kernel)
    assert close(early.outer_scores, late.outer_scores)
    assert close(early.ratios(torch.arange(N)), late.ratios(torch.arange(N)))


def test_a_settled_point_stays_and_moves_nothing():
    points, others, targets = problem()
    points[7] = points[1]
    fit = KernelFit((points @ points.T).float(), TRAINING, targets, NOISE)
    forced = ForcedFit(fit)
    forced.watch((others @ points.T).float())
    forced.force(1, torch.ones(CLASSES))
    before = forced.outer_scores.clone()
    assert not forced.ratios(torch.tensor([1, 7])).any()
    forced.force(7, -torch.ones(CLASSES))
    assert torch.equal(forced.outer_scores, before)
    assert close(forced.scores[7], torch.ones(CLASSES))
    assert forced.forced == [1]


def test_the_clean_fit_is_left_alone():
    fit, kernel = fitted()
    before = fit.scores.clone(), fit.covariance.clone()
    forced = ForcedFit(fit)
    forced.watch(kernel)
    forced.force(0, torch.ones(CLASSES))
    assert torch.equal(fit.scores, before[0])
    assert torch.equal(fit.covariance, before[1])


def test_a_kernel_that_cannot_be_solved():
    with pytest.raises(UserError, match="the kernel of these inputs is not finite"):
        KernelFit(torch.full((2, 2), torch.nan), torch.arange(2), torch.eye(2), 0.1)
    with pytest.raises(UserError, match="noise must be larger"):
        KernelFit(-torch.eye(2), torch.arange(2), torch.eye(2), 0.1)
