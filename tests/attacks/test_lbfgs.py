import math

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime, minimize

from lightning_poison.attacks import LBFGS, PGD
from lightning_poison.errors import UserError


def distances(linear, inputs, labels):
    """How far each point is from the hyperplane between two classes; 0 on the wrong side."""
    difference = (linear.weights[1 - labels] - linear.weights[labels]).detach()
    scores = linear(inputs).detach()
    margins = (scores.gather(1, labels[:, None]) - scores.gather(1, 1 - labels[:, None])).squeeze(1)
    return (margins / difference.norm(dim=1)).clamp_min(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_nearest_point_behind_a_hyperplane(dtype, linear, middling):
    inputs, labels = middling[0][:12].to(dtype), middling[1][:12]
    linear.to(dtype)
    result = LBFGS()(linear, inputs, labels)
    expected = distances(linear, inputs, labels).double()
    assert result.fooled.all()
    sizes = result.details["l2"]
    assert 3 < (expected > 0).sum() < 12
    assert (sizes >= expected - 1e-6).all()
    assert (sizes <= 1.02 * expected + 1e-5).all()
    assert result.examples[expected == 0].equal(inputs[expected == 0])
    torch.testing.assert_close((result.examples - inputs).double().flatten(1).norm(dim=1), sizes)
    assert (linear(result.examples).argmax(1) != labels).all()


def test_the_box_is_kept_where_it_lengthens_the_way(linear):
    # A pixel at the border that can't go on leaves its share to the others: closed form on the free coordinates.
    weights = torch.zeros(2, 12, dtype=torch.float64)
    weights[0, :3] = torch.tensor([3.0, 2.0, 1.0])
    linear.weights.data, linear.bias.data = weights, torch.tensor([-1.5, 0.0], dtype=torch.float64)
    x = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    x[0, 0, 0, 0], x[0, 0, 0, 2] = 0.0, 0.9  # the first pixel can't fall: 2 (x2 - d2) + (x3 - d3) = 1.5
    result = LBFGS(search_steps=16)(linear, x, torch.tensor([0]))
    expected = (2 * 0.5 + 0.9 - 1.5) / math.sqrt(5)
    assert result.fooled.all()
    assert expected <= result.details["l2"].item() <= 1.02 * expected
    assert result.examples.min() >= 0


def test_a_radius_bounds_what_counts(linear, middling):
    inputs, labels = middling[0][:12], middling[1][:12]
    needed = distances(linear, inputs, labels)
    eps = float(needed[needed > 0].median())
    bounded, free = LBFGS(eps)(linear, inputs, labels), LBFGS()(linear, inputs, labels)
    assert (LBFGS(eps).norm, LBFGS().norm, LBFGS().eps) == ("l2", None, math.inf)
    within = free.details["l2"] <= eps
    assert 0 < within.sum() < len(within)
    assert bounded.fooled.equal(within)
    assert bounded.examples[~within].equal(inputs[~within])
    assert bounded.examples[within].equal(free.examples[within])
    assert bounded.details["l2"].isnan().equal(~within)
    assert LBFGS("1/2").eps == 0.5


@pytest.mark.parametrize("targeted", [False, True])
def test_on_a_network_it_fools_in_the_box_with_hardly_more_than_pgd_needs(targeted, trained, digits, unchanged):
    inputs, labels = digits[0][1200:1203], digits[1][1200:1203]
    targets = (labels + 1) % 10 if targeted else None
    result = unchanged(trained, lambda: LBFGS()(trained, inputs, labels, targets=targets))
    with torch.no_grad():
        predictions = trained(result.examples).argmax(1)
    assert result.fooled.all()
    assert (predictions == targets if targeted else predictions != labels).all()
    assert result.examples.dtype == inputs.dtype
    assert result.examples.min() >= 0
    assert result.examples.max() <= 1
    sizes = result.details["l2"]
    # An independent upper bound: the smallest of many radii at which projected gradients succeed.
    radii = [0.2 * 1.25**k for k in range(12)]
    bounds = torch.full_like(sizes, math.inf)
    for eps in reversed(radii):
        bounds[PGD(eps, steps=15, norm="l2")(trained, inputs, labels, targets=targets).fooled] = eps
    assert (sizes <= 1.15 * bounds).all()


def test_the_optimiser_gets_the_problem_its_gradient_and_its_bounds(linear, middling, monkeypatch):
    # Whatever it does with them: the nearest point seen is kept, which hides a wrong gradient.
    given = []

    def spy(objective, start, **options):
        given.append((objective, start, options["bounds"]))
        return minimize(objective, start, **options)

    monkeypatch.setattr("lightning_poison.attacks.lbfgs.minimize", spy)
    inputs, labels = middling[0][:1], linear(middling[0][:1]).argmax(1)
    LBFGS(search_steps=1, initial_c=3.0)(linear, inputs, labels)
    objective, start, bounds = given[0]
    assert bounds == [(0, 1)] * 12
    assert start.tolist() == inputs.flatten().tolist()
    point = np.linspace(0.1, 0.9, 12)
    value, slope = objective(point)
    scores = linear(torch.tensor(point)[None]).detach()
    penalty = 3 * ((point - start) ** 2).sum()
    assert value == pytest.approx(penalty - float(scores.log_softmax(1)[0, 1 - labels]))
    np.testing.assert_allclose(slope, approx_fprime(point, lambda z: objective(z)[0]), rtol=1e-4, atol=1e-4)


def test_a_network_that_cannot_be_fooled():
    scores = torch.tensor([[1.0, 0.0]])
    inputs = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    result = LBFGS(search_steps=2)(lambda x: scores + 0 * x.flatten(1)[:, :1], inputs, torch.tensor([0, 1]))
    assert result.fooled.tolist() == [False, True]
    assert result.examples.equal(inputs)
    assert result.details["l2"].isnan().tolist() == [True, False]
    assert LBFGS()(lambda x: scores, inputs[:0], torch.zeros(0, dtype=torch.int64)).fooled.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "must not be negative"),
        ({"eps": "abc"}, "must be a number or a fraction"),
        ({"search_steps": 0}, "search_steps must be an integer of at least 1"),
        ({"max_iterations": 0}, "max_iterations must be an integer of at least 1"),
        ({"initial_c": 0.0}, "initial_c must lie in"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        LBFGS(**arguments)
