import pytest
import torch
from torch import nn

from lightning_poison.attacks import decision_plane
from lightning_poison.errors import UserError


def points(count=3, shape=(1, 3, 4), seed=3):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)).double()


class Three(nn.Module):
    """A linear model with three classes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weights = nn.Parameter(torch.randn(3, 12, generator=generator).double())

    def forward(self, inputs):
        return (inputs.flatten(1) - 0.5) @ self.weights.T


def test_anchors_keep_their_distances_and_lie_on_the_plane():
    origin, first, second = points()
    plane = decision_plane(Three(), origin, first, second, resolution=5)
    corners = torch.stack([origin, first, second])
    assert torch.cdist(plane.anchors, plane.anchors).allclose(torch.cdist(corners.flatten(1), corners.flatten(1)))
    assert plane.anchors[0].tolist() == [0, 0]
    assert plane.anchors[1, 1].abs() < 1e-12
    assert plane.anchors[1, 0] > 0
    assert plane.anchors[2, 1] > 0
    assert (plane.basis @ plane.basis.T).allclose(torch.eye(2, dtype=torch.float64))
    assert plane.project(corners).allclose(plane.anchors)
    assert (plane.origin + plane.anchors @ plane.basis).allclose(corners.flatten(1))
    aside = torch.linalg.cross(*[nn.functional.pad(row, (0, 1)) for row in plane.anchors[1:]])
    assert aside[2] > 0  # the second point is on the positive side


def test_a_projection_is_the_nearest_point_of_the_plane():
    plane = decision_plane(Three(), *points(), resolution=3)
    other = points(1, seed=8)
    base = plane.basis.T  # a least-squares fit knows nothing of Gram and Schmidt
    expected = torch.linalg.lstsq(base, (other.flatten() - plane.origin)[:, None]).solution.squeeze(1)
    assert plane.project(other)[0].allclose(expected)


def test_boundaries_of_a_linear_model_are_straight_and_where_algebra_puts_them():
    model = Three()
    plane = decision_plane(model, *points(), resolution=15, margin=12.0)
    # On the plane the scores are affine in (x, y): W (origin - 1/2) + (W basis^T) (x, y).
    weights = model.weights.detach()
    offset, slopes = weights @ (plane.origin - 0.5), weights @ plane.basis.T
    for row, y in enumerate(plane.y.tolist()):
        for column, x in enumerate(plane.x.tolist()):
            scores = offset + x * slopes[:, 0] + y * slopes[:, 1]
            ordered = scores.sort(descending=True)
            assert plane.predictions[row, column] == ordered.indices[0]
            assert plane.lead[row, column] == pytest.approx(float(ordered.values[0] - ordered.values[1]), abs=1e-9)
            assert plane.confidence[row, column] == pytest.approx(float(scores.exp().max() / scores.exp().sum()))
    assert len(plane.predictions.unique()) == 3


def test_predictions_at_the_anchors_are_the_models(trained, digits):
    origin, first, second = digits[0][[0, 11, 25]]
    plane = decision_plane(trained, origin, first, second, resolution=161)
    for (x, y), point in zip(plane.anchors, (origin, first, second), strict=True):
        row, column = (plane.y - y).abs().argmin(), (plane.x - x).abs().argmin()
        assert plane.predictions[row, column] == trained(point[None]).argmax()
    assert len(plane.predictions.unique()) > 2


def test_the_grid_covers_the_anchors_and_a_margin_with_square_cells():
    plane = decision_plane(Three(), *points(), resolution=20, margin=0.1)
    cell = float(plane.x[1] - plane.x[0])
    for axis, number in ((plane.x, 0), (plane.y, 1)):
        assert (axis.diff() - cell).abs().max() < 1e-12
        places = plane.anchors[:, number]
        spread = float((plane.anchors.max(0).values - plane.anchors.min(0).values).max())
        assert axis[0] - cell / 2 <= places.min() - 0.1 * spread + 1e-9
        assert axis[-1] + cell / 2 >= places.max() + 0.1 * spread - 1e-9
    assert max(len(plane.x), len(plane.y)) == 20
    assert plane.predictions.shape == plane.confidence.shape == plane.lead.shape == (len(plane.y), len(plane.x))


def test_chunks_change_nothing_and_bound_what_the_network_sees(trained, digits):
    corners = digits[0][[0, 11, 25]]
    sizes = []
    handle = trained.register_forward_hook(lambda module, arguments, output: sizes.append(len(output)))
    try:
        some = decision_plane(trained, *corners, resolution=12, chunk_size=7)
    finally:
        handle.remove()
    assert max(sizes) == 7
    whole = decision_plane(trained, *corners, resolution=12)
    assert some.predictions.equal(whole.predictions)
    assert some.confidence.allclose(whole.confidence)


def test_the_network_is_left_alone(network, unchanged, digits):
    unchanged(network, lambda: decision_plane(network, *digits[0][:3], resolution=4))


def test_points_that_span_no_plane():
    origin, first, _ = points()
    for second in (origin, first, origin + 0.3 * (first - origin), 2 * origin - first):
        with pytest.raises(UserError, match="they lie on one line; choose another second point"):
            decision_plane(Three(), origin, first, second)
    with pytest.raises(UserError, match="they lie on one line"):
        decision_plane(Three(), origin, origin, first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 1}, "resolution must be an integer of at least 2"),
        ({"margin": -0.1}, "margin must lie in"),
        ({"chunk_size": 0}, "chunk_size must be an integer of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        decision_plane(Three(), *points(), **arguments)


def test_points_of_several_shapes_or_without_a_value():
    origin, first, second = points()
    with pytest.raises(UserError, match="the three points must have one shape"):
        decision_plane(Three(), origin, first, second[0])
    with pytest.raises(UserError, match="first must be finite"):
        decision_plane(Three(), origin, first * torch.nan, second)


def test_scores_in_half_precision_are_judged_in_double():
    model = lambda x: Three()(x).bfloat16()  # noqa: E731
    plane = decision_plane(model, *points(), resolution=5)
    assert plane.lead.dtype == plane.confidence.dtype == torch.float64
    exact = decision_plane(Three(), *points(), resolution=5)
    assert torch.allclose(plane.confidence, exact.confidence, atol=0.01)
    assert not plane.confidence.equal(plane.confidence.bfloat16().double())  # the softmax wasn't rounded as well
