import math

import pytest
import torch
from scipy.optimize import linprog

from lightning_poison.errors import UserError
from lightning_poison.functional.norms import NORMS, named_norm

DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}
ORDER = {"linf": float("inf"), "l2": 2, "l1": 1}


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pixels(*shape, seed=1):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NORMS)
def test_size_is_the_norm(name):
    vectors = noise(20, 2, 3)
    torch.testing.assert_close(
        NORMS[name].size(vectors), torch.stack([row.flatten().norm(ORDER[name]) for row in vectors])
    )


@pytest.mark.parametrize("name", NORMS)
def test_ascent_attains_the_dual_norm(name):
    gradients = noise(20, 7)
    directions = NORMS[name].ascent(gradients)
    assert (NORMS[name].size(directions) <= 1 + 1e-12).all()
    gains = (gradients * directions).sum(dim=1)
    torch.testing.assert_close(gains, gradients.norm(DUAL[name], dim=1))
    others = noise(5000, 7, seed=2)
    others = others / NORMS[name].size(others)[:, None]
    assert (gradients @ others.T).amax(dim=1).le(gains + 1e-12).all()


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-30, 1e30])
def test_ascent_of_vanishing_and_huge_gradients(name, scale):
    gradients = torch.full((1, 4), scale, dtype=torch.float32)
    size = float(NORMS[name].size(NORMS[name].ascent(gradients)))
    assert size == pytest.approx(float(scale > 0), abs=0.02)


def test_l1_ascent_takes_the_first_of_equal_coordinates():
    gradients = torch.tensor([[1.0, -3.0, 3.0, -3.0], [0.0, 0.0, 0.0, 0.0]])
    assert NORMS["l1"].ascent(gradients).tolist() == [[0, -1, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("name", NORMS)
def test_a_step_in_the_middle_of_the_box_is_the_steepest_direction(name):
    points, gradients = 0.4 + 0.2 * pixels(20, 1, 2, 4), noise(20, 1, 2, 4)
    moved = NORMS[name].step(points, gradients, 0.1)
    torch.testing.assert_close(moved, points + 0.1 * NORMS[name].ascent(gradients))


@pytest.mark.parametrize("name", ["linf", "l1"])
@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 2.5, 100.0])
def test_a_clipped_step_solves_the_linear_programme(name, length):
    # Variables d = p - n with p, n >= 0; for l1 the sum of all is bounded, for l_inf each one is.
    points, gradients = pixels(12, 6), noise(12, 6).round(decimals=1)
    points[:4] = points[:4].round()
    gradients[3:6, :3] = gradients[3:6, :1]  # ties
    size = min(length, 1.0) if name == "linf" else length
    moved = NORMS[name].step(points, gradients, size).clamp(0, 1)
    assert (NORMS[name].size(moved - points) <= size + 1e-12).all()
    for x, g, found in zip(points, gradients, moved, strict=True):
        most = size if name == "linf" else None
        bounds = [(0, r if most is None else min(r, most)) for r in [*(1 - x).tolist(), *x.tolist()]]
        limits = {} if name == "linf" else {"A_ub": [[1.0] * 12], "b_ub": [size]}
        best = linprog((-torch.cat([g, -g])).numpy(), bounds=bounds, **limits)
        assert float(g @ (found - x)) == pytest.approx(-best.fun, abs=1e-9)


def test_an_l1_step_shares_the_length_in_the_order_of_the_coordinates():
    points = torch.tensor([[0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 0.5, 1.0]])
    gradients = torch.tensor([[-1.0, 1.0, 1.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    moved = NORMS["l1"].step(points, gradients, 0.75)
    torch.testing.assert_close(moved, torch.tensor([[0.0, 0.75, 0.5, 1.0], [0.5, 0.5, 0.5, 1.0]]))


def test_an_l1_step_of_many_coordinates_and_of_points_outside_the_box():
    # 300 coordinates with little room each: more than are looked at first.
    points, gradients = 1 - 0.01 * pixels(3, 400), pixels(3, 400, seed=2)
    points[0, :5] = 1 + 1e-7
    moved = NORMS["l1"].step(points, gradients, 1.5)
    for x, g, found in zip(points, gradients, moved, strict=True):
        left = 1.5
        for i in sorted(range(400), key=lambda i, g=g: -float(g[i])):
            taken = min(left, max(0.0, 1 - float(x[i])))
            assert float(found[i]) == pytest.approx(float(x[i]) + taken, abs=1e-12)
            left -= taken
    assert moved[0, :5].equal(points[0, :5])


@pytest.mark.parametrize("name", NORMS)
def test_random_directions_fill_the_sphere_evenly(name):
    # Uniform in the l_inf ball, on the sphere otherwise; on the l1 sphere E|u_i| = 1/d, Var|u_i| = (d-1)/(d^2 (d+1)).
    draws = 2 * pixels(20000, 5, seed=3) - 1
    directions = NORMS[name].random_direction(draws)
    sizes = NORMS[name].size(directions)
    assert (sizes <= 1 + 1e-12).all()
    if name != "linf":
        torch.testing.assert_close(sizes, torch.ones_like(sizes))
    assert directions.mean(dim=0).abs().max() < 0.01
    if name == "l1":
        assert directions.abs().mean().item() == pytest.approx(1 / 5, abs=1e-3)
        assert directions.abs().var().item() == pytest.approx(4 / (25 * 6), rel=0.03)
    assert torch.isfinite(NORMS[name].random_direction(torch.tensor([[-1.0, 0.0], [0.0, 0.0]]))).all()


@pytest.mark.parametrize("name", NORMS)
def test_is_inside_sees_a_pixel_that_is_out(name):
    inputs = torch.full((3, 4), 0.5)
    examples = inputs.clone()
    examples[0, 0] += 0.101
    examples[1, 0] = float("nan")
    assert NORMS[name].is_inside(examples, inputs, 0.1).tolist() == [False, False, True]
    assert NORMS[name].is_inside(torch.tensor([[1.0001, 0.5]]), torch.tensor([[1.0, 0.5]]), 0.1).tolist() == [False]
    assert NORMS[name].is_inside(inputs[:0], inputs[:0], 0.1).shape == (0,)


def test_unknown_norm():
    with pytest.raises(UserError, match="norm must be one of linf, l2, l1, got l7"):
        named_norm("l7")


@pytest.mark.parametrize(("name", "order"), [("l2", 2), ("l1", 1)])
def test_sizes_are_summed_exactly_enough(name, order):
    # What attacks make: many coordinates of one size, whose rounding errors all have one sign.
    for dtype in (torch.float32, torch.float64):
        vectors = torch.full((2, 150_528), 0.0274, dtype=dtype)
        exact = math.fsum(value**order for value in vectors[0].tolist()) ** (1 / order)
        assert float(NORMS[name].size(vectors)[0]) == pytest.approx(exact, rel=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "eps"), [("l1", 601.7), ("l2", 5.0)])
def test_what_a_projection_returns_is_inside(name, eps, dtype):
    centres = torch.full((2, 30_000), 0.5, dtype=dtype)
    points = centres + torch.tensor([[1.0], [-0.9]], dtype=dtype)
    assert NORMS[name].is_inside(NORMS[name].onto_ball_and_box(points, centres, eps), centres, eps).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_step_along_many_coordinates_in_half_precision(dtype):
    gradients = torch.full((1, 150_528), 0.01, dtype=dtype)  # the sum of their squares, scaled, is beyond float16
    assert float(NORMS["l2"].ascent(gradients).double().norm()) == pytest.approx(1, rel=0.02)
