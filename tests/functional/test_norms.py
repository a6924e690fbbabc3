import pytest
import torch
from scipy.optimize import minimize

from lightning_poison.errors import UserError
from lightning_poison.functional.norms import NORMS, named_norm

DUAL = {"linf": 1, "l2": 2}
ORDER = {"linf": float("inf"), "l2": 2}


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


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_into_ball_and_box_ends_in_both(name, eps, dtype):
    inputs = pixels(50, 1, 4, 4).to(dtype)
    inputs[:10] = inputs[:10].round()  # corners of the box
    examples = inputs + 2 * noise(50, 1, 4, 4).to(dtype)
    inside = NORMS[name].into_ball_and_box(examples, inputs, eps)
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert NORMS[name].is_inside(inside, inputs, eps).all()
    # The tolerance is of the size of rounding, computed here in double precision.
    sizes = NORMS[name].size(inside.double() - inputs.double())
    assert (sizes <= eps + 20 * torch.finfo(dtype).eps * (1 + eps)).all()


def test_linf_projection_is_the_nearest_point_of_ball_and_box():
    inputs, eps = pixels(5, 3), 0.2
    examples = inputs + noise(5, 3)
    projected = NORMS["linf"].into_ball_and_box(examples, inputs, eps)
    for example, centre, found in zip(examples, inputs, projected, strict=True):
        bounds = [(max(0.0, c - eps), min(1.0, c + eps)) for c in centre.tolist()]
        best = minimize(lambda u, e=example: ((torch.tensor(u) - e) ** 2).sum().item(), centre, bounds=bounds)
        torch.testing.assert_close(found, torch.tensor(best.x), atol=1e-5, rtol=0)


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
    with pytest.raises(UserError, match="norm must be one of linf, l2, got l7"):
        named_norm("l7")
