"""Spheres and weak features, against areas known from school and against simulation."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.theory import (
    cap_height,
    cap_measure,
    feature_strengths,
    linear_risk,
    robust_weights,
    sphere_risk,
)
from lightning_poison.theory.covering import gaussian_cap_height


@pytest.mark.parametrize("height", [-1.0, -0.7, 0.0, 0.2, 0.999, 1.0])
def test_caps_in_two_and_three_dimensions(height):
    assert cap_measure(height, 2) == pytest.approx(math.acos(height) / math.pi, abs=1e-12)
    assert cap_measure(height, 3) == pytest.approx((1 - height) / 2, abs=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 50, 500, 10_000])
def test_height_and_measure_are_inverse(dim):
    for measure in (0.01, 0.3, 0.5, 0.8):
        assert cap_measure(cap_height(measure, dim), dim) == pytest.approx(measure, rel=1e-9)
    assert sphere_risk(1e-9, dim, 1e-12) == pytest.approx(1e-9, rel=0.01)


def test_in_high_dimension_the_lecture_s_approximation_is_close():
    for measure in (0.001, 0.1, 0.4):
        assert cap_height(measure, 500) == pytest.approx(gaussian_cap_height(measure, 500), rel=0.01)
    assert cap_height(0.01, 20_000) < 0.02


def test_a_cap_grows_as_points_of_the_sphere_say():
    points = torch.randn(200_000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points *= 1.3 / points.norm(dim=1, keepdim=True)
    height = cap_height(0.05, 6)
    assert float((points[:, 0] >= 1.3 * height).double().mean()) == pytest.approx(0.05, abs=0.002)
    eps = 0.4
    # The nearest point of the cap lies on its rim, in the plane of the point and the axis.
    angle = (torch.acos(points[:, 0] / 1.3) - math.acos(height)).clamp(min=0)
    reached = (2 * 1.3 * torch.sin(angle / 2) <= eps).double().mean()
    assert sphere_risk(0.05, 6, eps, radius=1.3) == pytest.approx(float(reached), abs=0.005)


def test_other_sets_of_errors_have_no_smaller_neighbourhood():
    points = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points /= points.norm(dim=1, keepdim=True)
    wrong = points[:, 0].abs() > cap_height(0.05, 3)  # two caps, 0.1 together
    near = torch.cdist(points, points[wrong]).amin(1) <= 0.3
    assert float(near.double().mean()) >= sphere_risk(0.1, 3, 0.3) - 0.01


def test_limits_on_the_sphere():
    assert sphere_risk(0.0, 500, 1.0) == 0.0
    assert sphere_risk(0.001, 500, 2.0) == 1.0
    assert sphere_risk(0.001, 500, 0.0) == pytest.approx(0.001)
    assert sphere_risk(0.7, 10, 0.0) == pytest.approx(0.7)
    with pytest.raises(UserError, match="dim must be an integer of at least 2"):
        cap_measure(0.5, 1)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_linear_risk_is_what_an_adversary_achieves(eps):
    generator = torch.Generator().manual_seed(0)
    strengths = feature_strengths(30)
    for weights in (strengths, torch.randn(30, generator=generator).double(), robust_weights(strengths, eps)):
        labels = torch.where(torch.rand(200_000, generator=generator) < 0.5, -1.0, 1.0).double()
        noise = torch.randn(200_000, 30, generator=generator).double()
        inputs = labels[:, None] * (strengths - eps * weights.sign()) + noise
        wrong = (labels * (inputs @ weights) <= 0).double().mean()
        assert linear_risk(strengths, weights, eps) == pytest.approx(float(wrong), abs=0.005)


def test_robust_weights_are_the_best():
    strengths, generator = feature_strengths(12), torch.Generator().manual_seed(0)
    for eps in (0.0, 0.2, 0.6):
        best = linear_risk(strengths, robust_weights(strengths, eps), eps)
        for _ in range(300):
            other = robust_weights(strengths, eps) + 0.1 * torch.randn(12, generator=generator).double()
            assert linear_risk(strengths, other, eps) >= best - 1e-12
    with pytest.raises(UserError, match="eps must be less than the largest strength"):
        robust_weights(strengths, 1.0)


def test_the_lecture_s_example():
    strengths = feature_strengths(100_000)
    eps = 2 * float(strengths[1])
    assert linear_risk(strengths, strengths) < 0.001
    assert linear_risk(strengths, strengths, eps) > 0.99
    strong = torch.zeros(100_000)
    strong[0] = 1
    assert linear_risk(strengths, strong) == pytest.approx(0.16, abs=0.002)
    assert linear_risk(strengths, strong, eps) == pytest.approx(0.16, abs=0.01)
    with pytest.raises(UserError, match="weights must not all be 0"):
        linear_risk(strengths, torch.zeros(100_000))
