import copy

import pytest
import torch
from torch import nn

from lightning_poison.attacks import PGD, FiniteDifferences
from lightning_poison.attacks.finite_differences import coordinate_directions, estimate_gradients, random_directions
from lightning_poison.errors import UserError


class Counting(nn.Module):
    """Counts how many inputs a network sees, and refuses gradients and anything that is no image."""

    def __init__(self, net):
        super().__init__()
        self.net, self.count = net, 0

    def forward(self, inputs):
        assert not inputs.requires_grad
        assert inputs.min() >= 0
        assert inputs.max() <= 1
        self.count += len(inputs)
        return self.net(inputs)


def standard_error(shares, count):
    return (shares * (1 - shares) / count) ** 0.5


def at_the_border(count=30, size=7):
    """Points of which many coordinates lie at 0 or 1, or nearer to them than sigma."""
    generator = torch.Generator().manual_seed(2)
    points = (1.5 * torch.rand(count, size, generator=generator, dtype=torch.float64) - 0.25).clamp(0, 1)
    assert (points == 0).any()
    assert (points == 1).any()
    return points


@pytest.mark.parametrize("at_once", [1, 64, 4096])
def test_coordinates_give_the_gradient_of_a_linear_function(at_once):
    points = at_the_border()
    slopes = torch.linspace(-3, 4, 7, dtype=torch.float64)
    found = estimate_gradients(
        lambda x, _: x @ slopes, points, coordinate_directions(points), count=7, sigma=0.1, at_once=at_once
    )
    torch.testing.assert_close(found, slopes.expand(30, 7), rtol=0, atol=1e-12)


def test_each_point_has_its_own_function():
    points = at_the_border()
    slopes = torch.randn(30, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = estimate_gradients(
        lambda x, rows: (x * slopes[rows]).sum(1), points, coordinate_directions(points), count=7, sigma=0.1, at_once=99
    )
    torch.testing.assert_close(found, slopes, rtol=0, atol=1e-12)


def test_coordinates_are_central_differences():
    # The cube's central difference at x is 3x^2 + sigma^2; one-sided at the border it is sigma^2.
    points = torch.tensor([[0.5], [0.25], [0.0]], dtype=torch.float64)
    directions = coordinate_directions(points)
    found = estimate_gradients(lambda x, _: x[:, 0] ** 3, points, directions, count=1, sigma=0.1, at_once=8)
    expected = torch.tensor([[0.75 + 0.01], [0.1875 + 0.01], [0.01]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_random_directions_are_unbiased_with_the_known_variance():
    # One point, many streams: 40,000 independent estimates from 2 directions each.
    count, streams, sigma = 2, 40_000, 0.1
    point = torch.tensor([0.5, 0.0, 0.96, 0.3], dtype=torch.float64)
    slopes = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    points = point.expand(streams, 4)
    directions = random_directions(points, 0, [(row,) for row in range(streams)])
    total = estimate_gradients(lambda x, _: x @ slopes, points, directions, count=count, sigma=sigma, at_once=10**6)
    estimates = total / count
    spans = torch.tensor([0.2, 0.1, 0.14, 0.2], dtype=torch.float64)
    terms = (spans * slopes).square()
    variance = (terms.sum() - terms) / spans.square() / count
    error = (variance / streams).sqrt()
    assert ((estimates.mean(dim=0) - slopes).abs() < 4 * error).all()
    torch.testing.assert_close(estimates.var(dim=0), variance, rtol=0.03, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_equals_white_box_on_a_linear_model(norm, targeted, linear, middling):
    inputs, labels = middling
    eps, targets = 0.05 if norm == "linf" else 0.15, 1 - labels if targeted else None
    white = PGD(eps, steps=5, norm=norm, losses=("margin",))(linear, inputs, labels, targets=targets)
    black = FiniteDifferences(eps, steps=5, norm=norm)(linear, inputs, labels, targets=targets)
    torch.testing.assert_close(black.examples, white.examples, rtol=0, atol=1e-9)
    assert black.fooled.equal(white.fooled)
    assert 0 < black.fooled.sum() < len(labels)


def test_coordinates_reach_the_white_box_accuracy(trained, digits):
    inputs, labels = digits[0][1200:1500], digits[1][1200:1500]
    for eps in (0.05, 0.1):
        white = PGD(eps, steps=5, losses=("margin",))(trained, inputs, labels).fooled.double().mean()
        black = FiniteDifferences(eps, steps=5)(trained, inputs, labels).fooled.double().mean()
        assert abs(white - black) < 2 * standard_error(white, 300)
        assert 0.1 < white < 0.99


def test_random_directions_come_near_the_white_box_and_do_not_beat_it(trained, digits):
    inputs, labels = digits[0][1200:1500], digits[1][1200:1500]
    white = PGD(0.1, steps=10, losses=("margin",))(trained, inputs, labels).fooled.double().mean()
    few, many = (
        FiniteDifferences(0.1, steps=10, directions="random", samples=samples)(trained, inputs, labels)
        .fooled.double()
        .mean()
        for samples in (3, 100)
    )
    error = standard_error(white, 300)
    assert few < many <= white + 2 * error
    assert many > white - 4 * error


@pytest.mark.parametrize("directions", ["coordinates", "random"])
def test_queries_are_counted_exactly(directions, trained, digits):
    inputs, labels = digits[0][1200:1260], digits[1][1200:1260]
    net = Counting(trained).eval()
    attack = FiniteDifferences(0.12, steps=3, step_size=0.03, directions=directions, samples=20)
    result = attack(net, inputs, labels)
    queries = result.details["queries"]
    assert net.count == queries.sum() + 2 + 4  # two images try out the memory layout, two and two whether passes differ
    each = 1 + 2 * (64 if directions == "coordinates" else 20)
    # Wrong anyway: one look. Fooled after k steps: k gradients, k + 1 looks. Never: 3 gradients, 4 looks.
    assert set(queries.tolist()) <= {1 + k * each for k in range(4)}
    assert (queries[~result.fooled] == 1 + 3 * each).all()
    wrong = trained(inputs).argmax(1) != labels
    assert ((queries == 1) == wrong).all()
    assert len(queries.unique()) >= 3


def test_the_budget_is_kept(trained, digits):
    inputs, labels = digits[0][1200:1260], digits[1][1200:1260]
    attack = FiniteDifferences(0.05, steps=10, step_size=0.01, max_queries=259)
    result = attack(trained, inputs, labels)
    assert result.details["queries"].max() == 1 + 2 * 129
    assert attack(trained, inputs, labels).examples.equal(
        FiniteDifferences(0.05, steps=2, step_size=0.01)(trained, inputs, labels).examples
    )
    with pytest.raises(UserError, match=r"max_queries must be at least 130 for one step along 64 directions, got 129"):
        FiniteDifferences(max_queries=129)(trained, inputs, labels)


@pytest.mark.parametrize("directions", ["coordinates", "random"])
def test_batching_does_not_matter(directions, trained, digits):
    inputs, labels = digits[0][1200:1320].double(), digits[1][1200:1320]
    attack = FiniteDifferences(0.1, steps=3, directions=directions, samples=10)
    ids = torch.arange(1200, 1320)
    before = torch.get_rng_state()
    net = trained.double()
    try:
        whole = attack(net, inputs, labels, sample_ids=ids)
        slices = torch.arange(120).split([7, 90, 23])
        parts = [attack(net, inputs[rows], labels[rows], sample_ids=ids[rows]) for rows in slices]
        other = attack(net, inputs, labels, sample_ids=ids + 1)
    finally:
        net.float()
    torch.testing.assert_close(torch.cat([part.examples for part in parts]), whole.examples, rtol=0, atol=1e-9)
    assert torch.cat([part.details["queries"] for part in parts]).equal(whole.details["queries"])
    assert other.examples.equal(whole.examples) == (directions == "coordinates")
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    "mask",
    [
        lambda net: lambda x: (net(x) * 4).round() / 4,  # scores with few digits
        lambda net: lambda x: net((x * 8).round() / 8),  # pixels with few grey levels
    ],
)
def test_masked_gradients_do_not_help(mask, trained, digits):
    inputs, labels = digits[0][1200:1320], digits[1][1200:1320]
    masked = mask(trained)
    wrong = masked(inputs).argmax(1) != labels
    with pytest.warns(match="gradient is exactly zero .* or take FiniteDifferences"):
        white = PGD(0.15, steps=10)(masked, inputs, labels)
    assert white.fooled.equal(wrong)  # nothing but zeros: the attack doesn't move
    # Of eight networks it fooled 0.91 to 0.99 of what unmasked gradients fool; at sigma 0.05 rounded scores still hide
    # the slope at some points, and it was 0.82 to 0.93, and 0.798 of this network on some processors.
    black = FiniteDifferences(0.15, steps=10, sigma=0.1)(masked, inputs, labels)
    unmasked = PGD(0.15, steps=10)(trained, inputs, labels)
    assert black.fooled.sum() > 0.8 * unmasked.fooled.sum() > 3 * wrong.sum()


def test_a_plateau_is_told(trained, digits):
    inputs, labels = digits[0][1200:1230], digits[1][1200:1230]
    always_three = torch.eye(10)[3]
    with pytest.warns(match="gradient is exactly zero"):
        flat = FiniteDifferences(0.1, steps=2)(lambda x: always_three.expand(len(x), 10), inputs, labels)
    assert flat.details["zero_gradient"].equal((labels == 3).double())
    assert flat.fooled.equal(labels != 3)
    assert not FiniteDifferences(0.1, steps=2)(trained, inputs, labels).details["zero_gradient"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, "for 8 grey levels of 255 write 8/255"),
        ({"norm": "l7"}, "norm must be one of linf, l2"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0; use steps=20"),
        ({"directions": "all"}, "directions must be one of coordinates, random, got all"),
        ({"samples": 0}, "samples must be an integer of at least 1"),
        ({"sigma": 0}, r"sigma must lie in \[0.0001, 0.5\], got 0.0; use sigma=0.01"),
        ({"sigma": 2}, "for 2 grey levels of 255 write 2/255"),
        ({"max_queries": 0}, "max_queries must be an integer of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        FiniteDifferences(**arguments)


def test_leaves_the_network_alone(network, digits, unchanged):
    inputs, labels = digits[0][:20], digits[1][:20]
    attack = FiniteDifferences(0.1, steps=1, directions="random", samples=2)
    unchanged(network, lambda: attack(network, inputs, labels))
    with torch.inference_mode():
        inside = attack(network, inputs.clone(), labels.clone())
    assert inside.examples.equal(attack(network, inputs, labels).examples)


def test_a_difference_too_short_for_half_precision_is_no_difference(trained, digits):
    inputs, labels = digits[0][1200:1210].bfloat16(), digits[1][1200:1210]
    half = copy.deepcopy(trained).bfloat16()
    with pytest.warns(match="larger sigma"):
        found = FiniteDifferences(0.1, steps=2, sigma=1e-4)(half, 0.5 + inputs / 2, labels)
    assert found.examples.isfinite().all()
