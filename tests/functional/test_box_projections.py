import pytest
import torch
from scipy.optimize import minimize

from lightning_poison.functional.norms import NORMS

RADII = {"linf": (0.0, 0.05, 0.3, 1.0), "l2": (0.0, 0.05, 0.6, 1.5, 9.0), "l1": (0.0, 0.05, 0.9, 3.0, 50.0)}
CASES = [(name, eps) for name in NORMS for eps in RADII[name]]


def problem(count=60, pixels=16, spread=1.0, dtype=torch.float64, seed=0):
    """Centres, a third of them in the box's corners or with coordinates on its border, and points around."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, pixels, dtype=torch.float64, generator=generator)
    centres[: count // 6] = centres[: count // 6].round()
    centres[count // 6 : count // 3, ::2] = centres[count // 6 : count // 3, ::2].round()
    points = centres + spread * torch.randn(count, pixels, dtype=torch.float64, generator=generator)
    return points.to(dtype), centres.to(dtype)


def by_bisection(name, point, centre, eps):
    """The nearest point of ball and box, by bisection on the multiplier of the ball's constraint.

    For a multiplier m each coordinate minimises ``(u - v)^2 / 2 + m h(u - c)`` over [0, 1], with h = square / 2 for l2
    and h = absolute value for l1; the size of the solution falls with m.
    """

    def best(m):
        way = point - centre
        shrunk = way / (1 + m) if name == "l2" else way.sign() * (way.abs() - m).clamp_min(0)
        return (centre + shrunk).clamp(0, 1)

    def size(u):
        return float((u - centre).norm(p=2 if name == "l2" else 1))

    if size(best(0.0)) <= eps:
        return best(0.0)
    low, high = 0.0, 1.0
    while size(best(high)) > eps:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if size(best(middle)) > eps else (low, middle)
    return best(high)


@pytest.mark.parametrize(("name", "eps"), CASES)
@pytest.mark.parametrize("spread", [0.01, 0.3, 5.0])
def test_no_point_of_ball_and_box_lies_on_the_far_side(name, eps, spread):
    # u is the projection of v onto a convex set C iff u is in C and <v - u, z - u> <= 0 for every z in C.
    points, centres = problem(spread=spread)
    found = NORMS[name].onto_ball_and_box(points, centres, eps)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (NORMS[name].size(found - centres) <= eps + 1e-12).all()
    generator = torch.Generator().manual_seed(1)
    others = torch.randn(60, 300, 16, dtype=torch.float64, generator=generator)
    others[:, 100:200] *= torch.rand(60, 100, 16, generator=generator) < 0.15  # sparse ones reach the l1 ball's corners
    flat = others.flatten(0, 1)
    flat = flat * (eps / NORMS[name].size(flat).clamp_min(1e-9))[:, None]
    # Moved into the box coordinate by coordinate no absolute norm grows; and points next to the solution.
    inside = (centres[:, None] + flat.view_as(others)).clamp(0, 1)
    near = found[:, None] + 0.01 * (inside - found[:, None])
    for z in (inside, near):
        products = ((points - found)[:, None] * (z - found[:, None])).sum(dim=2)
        assert products.max() <= 1e-10


@pytest.mark.parametrize(("name", "eps"), [case for case in CASES if case[0] != "linf"])
@pytest.mark.parametrize("spread", [0.01, 0.3, 5.0])
def test_equals_bisection_on_the_multiplier(name, eps, spread):
    points, centres = problem(spread=spread, seed=3)
    found = NORMS[name].onto_ball_and_box(points, centres, eps)
    expected = torch.stack([by_bisection(name, v, c, eps) for v, c in zip(points, centres, strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "eps"), [("linf", 0.2), ("l2", 0.5), ("l1", 0.7)])
def test_equals_a_general_solver(name, eps):
    points, centres = problem(count=6, pixels=3, spread=0.6)
    found = NORMS[name].onto_ball_and_box(points, centres, eps)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).double()
    faces = {"linf": torch.cat([torch.eye(3), -torch.eye(3)]).double(), "l1": signs}
    for v, c, u in zip(points, centres, found, strict=True):
        if name == "l2":
            room = {"type": "ineq", "fun": lambda x, c=c: eps**2 - ((x - c.numpy()) ** 2).sum()}
        else:
            room = {"type": "ineq", "fun": lambda x, c=c: eps - faces[name].numpy() @ (x - c.numpy())}
        best = minimize(
            lambda x, v=v: ((x - v.numpy()) ** 2).sum(),
            c.numpy(),
            bounds=[(0, 1)] * 3,
            constraints=[room],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        torch.testing.assert_close(u, torch.tensor(best.x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "eps"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_result_lies_in_both_after_rounding(name, eps, dtype):
    for spread in (1e-6, 0.1, 3.0):
        points, centres = problem(pixels=48, spread=spread, dtype=dtype)
        found = NORMS[name].onto_ball_and_box(points.view(-1, 3, 4, 4), centres.view(-1, 3, 4, 4), eps)
        assert found.shape == (60, 3, 4, 4)
        assert found.dtype == dtype
        assert NORMS[name].is_inside(found, centres.view(-1, 3, 4, 4), eps).all()
        exact = NORMS[name].onto_ball_and_box(points.double(), centres.double(), eps).view_as(found)
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("name", "eps"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_points_inside_stay_and_projecting_twice_is_projecting_once(name, eps, dtype):
    points, centres = problem(spread=0.3, dtype=dtype)
    once = NORMS[name].onto_ball_and_box(points, centres, eps)
    twice = NORMS[name].onto_ball_and_box(once, centres, eps)
    torch.testing.assert_close(twice, once, rtol=0, atol=4 * torch.finfo(dtype).eps)
    inside = centres + 0.9 * torch.rand(60, 16, generator=torch.Generator().manual_seed(5)).to(dtype) * (once - centres)
    if eps > 0:
        assert NORMS[name].onto_ball_and_box(inside, centres, eps).equal(inside)
    assert NORMS[name].onto_ball_and_box(centres, centres, eps).equal(centres)
    far = 0.1 * points.abs().clamp_max(1)  # c + (v - c) would not give v back to the last digit
    assert NORMS[name].onto_ball_and_box(far, centres, 1.0 if name == "linf" else 50.0).equal(far)
    assert NORMS[name].onto_ball_and_box(points[:0], centres[:0], eps).shape == (0, 16)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_tiny_and_huge_perturbations(name, scale):
    # In the middle of the box the projection onto ball and box of a long vector is that onto the ball.
    way = torch.tensor([[3.0, -2.0, 2.5, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, -1.0, 0.0]]) * scale
    centres = torch.full((3, 4), 0.5)
    found = NORMS[name].onto_ball_and_box(centres + way, centres, 0.3)
    expected = {
        "linf": [[0.3, -0.3, 0.3, 0], [0.3, 0.3, 0.3, 0.3], [0, 0, -0.3, 0]],
        "l2": [[0.2051, -0.1368, 0.1709, 0], [0.15, 0.15, 0.15, 0.15], [0, 0, -0.3, 0]],
        "l1": [[0.3, 0, 0, 0], [0.075, 0.075, 0.075, 0.075], [0, 0, -0.3, 0]],
    }[name]
    away = found - centres
    if scale > 1:
        torch.testing.assert_close(away, torch.tensor(expected), rtol=0, atol=1e-4)
    else:
        torch.testing.assert_close(away, way, rtol=0, atol=1e-7)
        zero = torch.zeros(3, 4)
        torch.testing.assert_close(NORMS[name].onto_ball_and_box(way.abs(), zero, 0.3), way.abs(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["l2", "l1"])
@pytest.mark.parametrize("huge", [1e2, 1e4, 1e6])
def test_a_long_coordinate_that_the_box_stops_at_once_does_not_hide_the_others(name, huge):
    centres = torch.tensor([[0.9, 0.5, 0.5, 0.2]], dtype=torch.float64)
    points = centres + torch.tensor([[huge, 0.4, -0.3, 0.3]], dtype=torch.float64)
    found = NORMS[name].onto_ball_and_box(points, centres, 0.5)
    torch.testing.assert_close(found[0], by_bisection(name, points[0], centres[0], 0.5), rtol=0, atol=1e-9)
    single = NORMS[name].onto_ball_and_box(points.float(), centres.float(), 0.5)
    torch.testing.assert_close(single.double(), found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NORMS)
def test_each_sample_is_projected_on_its_own(name):
    points, centres = problem(spread=0.5)
    whole = NORMS[name].onto_ball_and_box(points, centres, 0.4)
    for row in range(0, 60, 7):
        alone = NORMS[name].onto_ball_and_box(points[row : row + 1], centres[row : row + 1], 0.4)
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["l2", "l1"])
def test_mixed_precision_around_it_changes_nothing(name):
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(4, 784, generator=generator)
    points = centres + torch.randn(4, 784, generator=generator)
    for eps in (0.5, 3.0):
        expected = NORMS[name].onto_ball_and_box(points, centres, eps)
        with torch.autocast("cpu", torch.bfloat16):
            assert NORMS[name].onto_ball_and_box(points, centres, eps).equal(expected)
