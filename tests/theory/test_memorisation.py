"""The theorems on memorised label noise, against simulated training sets and classifiers that learn them by heart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_poison.errors import UserError
from lightning_poison.functional.intervals import binomial_lower
from lightning_poison.theory import (
    BallCovering,
    cover_by_balls,
    lipschitz_estimate,
    memorisation_bound,
    memorised_risk,
    samples_needed,
    training_margins,
)
from lightning_poison.theory.memorisation import attack_radius

BALLS = 8


def draw(count, generator):
    """Points in eight clusters of diameter 0.2 on a line, ten apart; the class alternates."""
    ball = torch.randint(BALLS, (count,), generator=generator)
    return (10.0 * ball + 0.2 * torch.rand(count, generator=generator) - 0.1)[:, None], ball % 2, ball


def noisy(labels, noise, generator):
    return torch.where(torch.rand(len(labels), generator=generator) < noise, 1 - labels, labels)


def share_missed(count, noise, trials=400):
    """How often some ball holds no mislabelled training point."""
    generator = torch.Generator().manual_seed(0)
    missed = 0
    for _ in range(trials):
        _, labels, ball = draw(count, generator)
        wrong = noisy(labels, noise, generator) != labels
        missed += len(ball[wrong].unique()) < BALLS
    return missed / trials


def test_the_number_of_samples_suffices_and_a_third_of_it_does_not():
    delta, noise = 0.1, 0.05
    count = samples_needed(BALLS, 1.0, noise, delta)
    assert share_missed(count, noise) < delta + 0.03
    assert share_missed(count // 3, noise) > 3 * delta


def test_eta_is_the_probability_of_a_wrong_label():
    """With little noise the thesis's wording would ask for far too few samples."""
    delta, noise = 0.1, 0.05
    by_wording = samples_needed(BALLS, 1.0, 1 - noise, delta)
    assert share_missed(by_wording, noise) > 0.9


def test_the_formula():
    for balls, c2, noise, delta in [(1, 1.0, 1.0, 0.5), (10, 0.3, 0.01, 1e-6), (1000, 0.9, 0.4, 0.9)]:
        count = samples_needed(balls, c2, noise, delta)
        assert count >= balls / (noise * c2) * math.log(balls / delta)
        assert count - 1 < balls / (noise * c2) * math.log(balls / delta)
        assert balls * (1 - noise * c2 / balls) ** count <= delta


def test_nearest_neighbours_are_as_vulnerable_as_the_data_say():
    """A 1-nearest-neighbour classifier learns every label; nearly every point can be moved by 2 rho into an error."""
    generator = torch.Generator().manual_seed(1)
    known, classes, _ = draw(2000, generator)
    covering = cover_by_balls(known, classes, rho=0.1, max_balls=20)
    bound = memorised_risk(covering, num_samples=1500, noise=0.05)
    assert bound.risk > 0.9
    assert bound.num_balls <= 20
    assert bound.failure <= 0.05
    inputs, labels, _ = draw(1500, generator)
    given = noisy(labels, 0.05, generator)
    points, true, _ = draw(1000, generator)
    wrong = inputs[given != labels]
    near = (points - wrong.T).abs() <= bound.attack_radius + 1e-9
    assert (near & (true[:, None] == labels[given != labels][None, :])).any(1).double().mean() >= bound.risk


def test_few_samples_or_rare_noise_say_nothing():
    known, classes, _ = draw(500, torch.Generator().manual_seed(1))
    covering = cover_by_balls(known, classes, rho=0.1)
    assert memorised_risk(covering, num_samples=5, noise=0.05).risk == 0
    some = memorised_risk(covering, num_samples=2000, noise=0.05)
    more = memorised_risk(covering, num_samples=20_000, noise=0.05)
    assert 0 < some.risk <= more.risk < 1


def test_the_failure_probability_covers_how_often_a_ball_is_missed():
    known, classes, _ = draw(4000, torch.Generator().manual_seed(1))
    covering = cover_by_balls(known, classes, rho=0.21, max_balls=BALLS)
    bound = memorised_risk(covering, num_samples=700, noise=0.05, delta=0.9)
    assert bound.num_balls == BALLS
    assert share_missed(700, 0.05) - 0.02 <= bound.failure <= 0.4
    assert memorised_risk(covering, num_samples=700, noise=0.05, delta=0.9 * bound.failure).num_balls < BALLS


def test_masses_are_not_overestimated():
    """The risk that is claimed exceeds the true mass of the balls in at most a share alpha of the estimates."""
    wrong = 0
    for seed in range(200):
        known, classes, _ = draw(120, torch.Generator().manual_seed(seed))
        covering = cover_by_balls(known, classes, rho=0.06, max_balls=6, seed=seed)
        bound = memorised_risk(covering, num_samples=10**6, noise=0.5, alpha=0.2)
        points, true, _ = draw(20_000, torch.Generator().manual_seed(10_000 + seed))
        used, kinds = covering.centres[: bound.num_balls], covering.classes[: bound.num_balls]
        inside = ((points - used.T).abs() <= 0.06) & (true[:, None] == kinds[None, :])
        wrong += float(inside.any(1).double().mean()) < bound.risk - 0.01
    assert wrong <= 0.2 * 200


def counted(in_ball, in_union, held_out):
    """A covering of which nothing but the counts is known."""
    balls = len(in_ball)
    classes = torch.zeros(balls, dtype=torch.int64)
    return BallCovering(torch.zeros(balls, 1), classes, 0.1, "l2", in_ball, in_union, held_out)


@pytest.mark.parametrize("balls", [1, 5, 40])
def test_all_masses_hold_at_once_and_share_alpha(balls):
    """Where every held-out point lies in every ball, Clopper and Pearson's bound is level^(1/n), by hand.

    There are two masses a ball, its own and that of the union so far; the union bound gives each alpha / (2 k).
    """
    held_out, alpha, noise, count = 30, 0.2, 0.1, 50
    every = torch.full((balls,), held_out)
    bound = memorised_risk(counted(every, every, held_out), num_samples=count, noise=noise, delta=1.0, alpha=alpha)
    mass = (alpha / (2 * balls)) ** (1 / held_out)
    assert bound.risk == pytest.approx(mass, rel=1e-9)
    assert bound.risk <= mass
    assert bound.num_balls == 1  # the first of equal ones
    assert bound.failure == pytest.approx((1 - noise * mass) ** count, rel=1e-6)
    assert bound.alpha == alpha


def test_the_largest_of_many_counts_is_overestimated_no_more_often_than_alpha():
    """Simulated: with alpha for each of forty equal masses, that of the largest count is too large in most samples."""
    balls, held_out, alpha, stream = 40, 200, 0.3, torch.Generator().manual_seed(0)
    wrong = alone = 0
    for _ in range(200):
        largest = torch.randint(balls, (held_out,), generator=stream).bincount().max()
        union = torch.zeros(balls, dtype=torch.int64)
        union[0] = largest
        covering = counted(torch.full((balls,), held_out), union, held_out)
        wrong += memorised_risk(covering, 10**6, noise=0.5, alpha=alpha).risk > 1 / balls
        alone += float(binomial_lower(largest[None], held_out, alpha)[0]) > 1 / balls
    assert wrong <= alpha * 200 < alone


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_covering_counts_held_out_points_of_the_balls_class(norm):
    generator = torch.Generator().manual_seed(2)
    points, classes = torch.rand(200, 3, generator=generator), torch.randint(3, (200,), generator=generator)
    covering = cover_by_balls(points, classes, rho=0.4, norm=norm, max_balls=7, seed=5)
    order = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
    assert covering.held_out == 100
    union = torch.zeros(200, dtype=torch.bool)
    for row, (centre, kind) in enumerate(zip(covering.centres, covering.classes, strict=True)):
        inside = (torch.linalg.vector_norm(points.double() - centre, ord=order, dim=1) <= 0.4) & (classes == kind)
        union |= inside
        assert 0 <= covering.in_ball[row] <= inside.sum() - 1, "the centre itself is not held out"
        assert covering.in_union[row] <= union.sum()
    whole = cover_by_balls(torch.cat([points, points]), torch.cat([classes, classes]), 0.0, norm, max_balls=1000)
    assert len(whole.centres) <= 200
    assert int(whole.in_union[-1]) <= whole.held_out


class Ramp(nn.Module):
    """Probability of class 1 on a line: rises from 0 to 1 with a given slope around 0."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, inputs):
        one = (0.5 + self.slope * inputs[:, :1]).clamp(1e-9, 1 - 1e-9)
        return torch.cat([1 - one, one], dim=1).log()


def test_a_smoother_classifier_needs_a_smaller_attack():
    """The ramp's margin at x is 2 slope x and kappa = 2 slope: the wrong region around x reaches exactly to 0."""
    net, place = Ramp(0.25), torch.tensor([[1.5]], dtype=torch.float64)
    margin = float(training_margins(net, place, torch.tensor([1]))[0])
    kappa = lipschitz_estimate(net, torch.linspace(-3, 3, 100, dtype=torch.float64)[:, None])
    assert margin == pytest.approx(0.75)
    assert kappa == pytest.approx(0.5)
    assert attack_radius(rho=2.0, margin=margin, lipschitz=kappa) == pytest.approx(4.0 - 1.5)
    farthest = torch.tensor([[1.5 - 4.0]], dtype=torch.float64)  # two radii from the training point
    moved = farthest + (4.0 - 1.5) + 1e-3
    assert net(farthest).argmax() == 0
    assert net(moved).argmax() == 1


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_no_small_step_is_steeper_than_the_estimate(norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    points = torch.randn(50, 5, dtype=torch.float64)
    each = [lipschitz_estimate(net, points[row : row + 1], norm) for row in range(50)]
    assert lipschitz_estimate(net, points, norm, batch_size=7) == pytest.approx(max(each))
    order = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
    steps = torch.randn(2000, 5, dtype=torch.float64).sign() if norm == "linf" else torch.randn(2000, 5).double()
    steps = 1e-6 * steps / torch.linalg.vector_norm(steps, ord=order, dim=1, keepdim=True)
    with torch.no_grad():
        for point, kappa in zip(points, each, strict=True):
            change = (net(point + steps).softmax(1) - net(point).softmax(0)).abs().sum(1) / 1e-6
            assert change.max() <= kappa * (1 + 1e-4)
            assert change.max() >= 0.3 * kappa


def test_margins():
    scores = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    labels = torch.tensor([1, 0])
    shares = scores.double().softmax(1)
    wanted = [float(shares[0, 1] - shares[0, 2]), float(shares[1, 0] - shares[1, 1])]
    assert training_margins(nn.Identity(), scores, labels, batch_size=1).tolist() == pytest.approx(wanted)


def test_bounds_in_one():
    bound = memorisation_bound(4, rho=1.0, c1=0.7, c2=0.6, noise=0.2, delta=0.01, margin=0.5, lipschitz=10.0)
    assert bound.samples == samples_needed(4, 0.6, 0.2, 0.01)
    assert (bound.attack_radius, bound.risk, bound.confidence) == (1.95, 0.7, 0.99)
    assert memorisation_bound(4, 1.0, 0.7, 0.6, 0.2, 0.01).attack_radius == 2.0
    assert attack_radius(1.0, margin=1.0, lipschitz=0.1) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c1": 0.1}, "c1 must be at least c2"),
        ({"noise": 0.0}, "noise must be positive"),
        ({"delta": 0.0}, "delta must be positive"),
        ({"c2": 0.0}, "c2 must be positive"),
        ({"margin": -0.1}, "margin must lie in"),
        ({"lipschitz": 0.0}, "lipschitz must be positive"),
        ({"num_balls": 0}, "num_balls must be an integer of at least 1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    valid = {"num_balls": 4, "rho": 1.0, "c1": 0.7, "c2": 0.6, "noise": 0.2, "delta": 0.01}
    with pytest.raises(UserError, match=message):
        memorisation_bound(**{**valid, **arguments})


def test_data_out_of_range():
    with pytest.raises(UserError, match="two or more"):
        cover_by_balls(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), 0.1)
    with pytest.raises(UserError, match="norm must be one of"):
        cover_by_balls(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), 0.1, norm="l3")


def test_points_far_from_the_origin_are_counted_where_they_are() -> None:
    # Distances by inner products are 0 or NaN here, and every ball held every point.
    points = 1e7 + 1e-3 * torch.rand(60, 1, generator=torch.Generator().manual_seed(0)).double()
    covering = cover_by_balls(points, torch.zeros(60, dtype=torch.int64), rho=1e-6, max_balls=100)
    distances = (points - covering.centres[:, 0]).abs()
    assert (covering.in_ball <= (distances <= 1e-6).sum(0)).all()
    assert int(covering.in_union[-1]) < 10


def test_broken_points_and_a_probability_above_one_are_refused() -> None:
    with pytest.raises(UserError, match="inputs must be finite"):
        cover_by_balls(torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.int64), rho=0.3)
    covering = cover_by_balls(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), rho=0.3)
    with pytest.raises(UserError, match="alpha"):
        memorised_risk(covering, num_samples=100, noise=0.1, alpha=2.0)
