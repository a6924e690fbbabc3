from __future__ import annotations

import pytest
import torch

from lightning_poison.functional.tangents import conjugate_gradients


def positive_matrix(size: int, seed: int) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("preconditioned", [False, True])
def test_solves_what_a_direct_solver_solves(seed, preconditioned):
    matrix = positive_matrix(12, seed)
    right = torch.randn(12, generator=torch.Generator().manual_seed(seed + 9), dtype=torch.float64)
    near = torch.diag(1 / matrix.diagonal())
    solution = conjugate_gradients(
        lambda x: matrix @ x, right, precondition=(lambda r: near @ r) if preconditioned else None, tolerance=1e-12
    )
    assert torch.allclose(solution.value, torch.linalg.solve(matrix, right), rtol=1e-8, atol=1e-8)
    assert solution.residual <= 1e-12


def test_an_exact_preconditioner_takes_one_step():
    matrix = positive_matrix(8, 0)
    inverse = torch.linalg.inv(matrix)
    solution = conjugate_gradients(lambda x: matrix @ x, torch.ones(8).double(), precondition=lambda r: inverse @ r)
    assert solution.steps == 1


def test_any_shape_and_a_right_hand_side_of_zero():
    right = torch.arange(6.0).double().view(2, 3)
    assert torch.allclose(conjugate_gradients(lambda x: 4 * x, right).value, right / 4)
    assert conjugate_gradients(lambda x: x, torch.zeros(3).double()).steps == 0


def test_limits():
    matrix, done = positive_matrix(30, 1), []
    solution = conjugate_gradients(
        lambda x: matrix @ x, torch.ones(30).double(), max_steps=3, tolerance=1e-12, advance=done.append
    )
    assert solution.steps == sum(done) == 3
    assert solution.residual > 1e-12
    assert conjugate_gradients(lambda x: -x, torch.ones(3).double()).value.tolist() == [0, 0, 0]
