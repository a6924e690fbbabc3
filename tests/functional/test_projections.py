import pytest
import torch

from lightning_poison.functional.projections import onto_l1_ball, onto_l2_ball, onto_linf_ball

KINDS = {
    "linf": (onto_linf_ball, lambda v: v.abs().amax(dim=1)),
    "l2": (onto_l2_ball, lambda v: v.square().sum(dim=1).sqrt()),
    "l1": (onto_l1_ball, lambda v: v.abs().sum(dim=1)),
}


@pytest.fixture
def vectors():
    return torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_projection_solves_the_variational_inequality(kind, vectors):
    # p is the projection of v onto a convex set C iff p is in C and <v - p, c - p> <= 0 for every c in C.
    project, size = KINDS[kind]
    p = project(vectors, 0.7)
    assert (size(p) <= 0.7 + 1e-12).all()
    others = torch.randn(2000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    others = others * (0.7 / size(others))[:, None]  # the ball's border holds the extreme points
    products = ((vectors - p)[:, None] * (others[None] - p[:, None])).sum(dim=2)
    assert products.max() <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_points_inside_stay_and_projecting_twice_is_projecting_once(kind, vectors):
    project, size = KINDS[kind]
    inside = vectors * (0.5 / size(vectors))[:, None]
    assert project(inside, 0.7).equal(inside)
    torch.testing.assert_close(project(project(vectors, 0.7), 0.7), project(vectors, 0.7), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_zero_radius_and_zero_vectors(kind, vectors):
    project, _ = KINDS[kind]
    images = vectors[:40].reshape(10, 2, 2, 5)
    torch.testing.assert_close(project(images, 0.7).flatten(1), project(images.flatten(1), 0.7))
    assert not project(vectors, 0.0).any()
    assert not project(torch.zeros(2, 3), 0.7).any()
    assert project(vectors[:0], 0.7).shape == (0, 5)
