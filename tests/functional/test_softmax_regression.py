from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from lightning_poison.errors import UserError
from lightning_poison.functional.softmax_regression import SoftmaxRegression


def problem(seed: int, points: int = 40, dims: int = 3, classes: int = 3):
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (points,), generator=stream)
    centres = torch.randn(classes, dims, generator=stream, dtype=torch.float64)
    return centres[labels] + torch.randn(points, dims, generator=stream, dtype=torch.float64), labels


def objective(weights, features, labels, strength):
    return cross_entropy(features @ weights.T, labels) + strength / 2 * weights.square().sum()


@pytest.mark.parametrize("strength", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_minimum_is_the_one_that_scipy_finds(seed, strength):
    features, labels = problem(seed)
    model = SoftmaxRegression(features, labels, 3, strength)

    def value(flat):
        weights = torch.tensor(flat).view(3, 3).requires_grad_()
        loss = objective(weights, features, labels, strength)
        loss.backward()
        return float(loss.detach()), weights.grad.flatten().numpy()

    found = minimize(
        value, torch.zeros(9).double().numpy(), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000}
    )
    ours = float(objective(model.weights, features, labels, strength))
    assert ours <= found.fun + 1e-12
    if strength > 1e-6:
        assert torch.allclose(model.weights.flatten(), torch.tensor(found.x), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_gradient_and_hessian_are_those_of_autograd(classes):
    features, labels = problem(7, classes=classes)
    model = SoftmaxRegression(features, labels, classes, 0.02)
    weights = model.weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(weights, features, labels, 0.02), weights)
    assert float(gradient.norm()) < 1e-9
    size = classes * 3
    hessian = torch.autograd.functional.hessian(lambda w: objective(w, features, labels, 0.02), model.weights)
    hessian = hessian.reshape(size, size)
    direction = torch.randn(classes, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(model.hessian_product(direction).flatten(), hessian @ direction.flatten(), atol=1e-12)
    assert torch.allclose(model.solve(direction).flatten(), torch.linalg.solve(hessian, direction.flatten()), rtol=1e-6)


def test_separable_data_and_classes_without_points():
    features = torch.tensor([[-2.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    model = SoftmaxRegression(features, torch.tensor([0, 0, 1, 1]), 4, 1e-4)
    assert bool(model.weights.isfinite().all())
    assert (features @ model.weights.T).argmax(dim=1).tolist() == [0, 0, 1, 1]
    assert torch.allclose(model.weights[2], model.weights[3])


def test_features_of_less_than_full_rank():
    features, labels = problem(3)
    doubled = torch.cat([features, features], dim=1)
    model = SoftmaxRegression(doubled, labels, 3, 1e-3)
    assert torch.allclose(model.weights[:, :3], model.weights[:, 3:], atol=1e-6)


def test_a_system_that_cannot_be_solved_is_an_error_and_no_number():
    stream = torch.Generator().manual_seed(0)
    scales = torch.logspace(-4, 4, 40, dtype=torch.float64)
    features = torch.randn(300, 40, generator=stream, dtype=torch.float64) * scales
    model = SoftmaxRegression(features, torch.randint(0, 3, (300,), generator=stream), 3, 1e-10)
    with pytest.raises(UserError, match="damping must be larger"):
        model.solve(torch.randn(3, 40, generator=stream, dtype=torch.float64))
