"""Victims whose scores differ from pass to pass: a lucky draw is no success."""

import functools
import math
import warnings

import pytest
import torch
import torchattacks
from torch import nn
from torch.nn import functional

from lightning_poison.attacks import (
    BIM,
    FGSM,
    ILCM,
    LBFGS,
    PGD,
    ExpectationOverTransformations,
    FiniteDifferences,
    StochasticVictimWarning,
    SubstituteTransfer,
    adversarial_paths,
    decision_plane,
    from_torchattacks,
    frozen_eval,
    is_stochastic,
    path_trace,
    robustness_curve,
)
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.stochastic import fooling_draws, fresh_verdicts

SIZE, COUNT, NOISE = 12, 1500, 0.5


def normal_cdf(values):
    return 0.5 * (1 + torch.erf(values / math.sqrt(2)))


class Noisy(nn.Module):
    """Two classes whose scores differ by ``w x + b`` and noise: an error has the probability of a normal tail."""

    def __init__(self, noise=NOISE):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights, self.noise = nn.Parameter(torch.randn(SIZE, generator=generator)), noise

    def lead(self, inputs, labels):
        """How far the label is ahead without noise."""
        value = (inputs - 0.5).flatten(1) @ self.weights.detach()
        return torch.where(labels == 1, value, -value)

    def forward(self, inputs):
        value = (inputs - 0.5).flatten(1) @ self.weights
        value = value + self.noise * torch.randn_like(value)
        return torch.stack([torch.zeros_like(value), value], dim=1)


def samples(count=COUNT):
    """Points away from the box's border, with labels that are right without noise."""
    inputs = 0.2 + 0.6 * torch.rand(count, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    return inputs, (Noisy().lead(inputs, torch.ones(count)) > 0).long()


def attacks(eps):
    net = Noisy()
    peer = functools.partial(torchattacks.PGD, eps=eps, alpha=eps / 2, steps=4, random_start=False)
    square = functools.partial(torchattacks.Square, eps=eps, n_queries=15)
    return {
        "fgsm": FGSM(eps),
        "bim": BIM(eps, steps=4),
        "last iterate": BIM(eps, steps=4, success="last iterate"),
        "ilcm": ILCM(eps, steps=4),
        "pgd": PGD(eps, steps=4, restarts=1),
        "differences": FiniteDifferences(eps, steps=3),
        "substitute": SubstituteTransfer(eps, steps=3, substitute=Noisy(0)),
        "torchattacks": from_torchattacks(peer, net),
        "square": from_torchattacks(square, net),
        "lbfgs": LBFGS(eps, search_steps=1, max_iterations=1),
    }


def seeded(run, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return run()


def withstood(attack, seed=0, count=COUNT, **arguments):
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", StochasticVictimWarning)
        torch.manual_seed(seed)
        result = attack(Noisy(), *samples(count), **arguments)
    assert result.criterion == "fresh evaluation"
    return float((~result.fooled).double().mean())


def close_to(shares):
    """The mean of independent draws, within four standard errors."""
    error = float((shares * (1 - shares)).sum().sqrt()) / len(shares)
    return pytest.approx(float(shares.mean()), abs=4 * error)


@pytest.mark.parametrize("name", attacks(0.0))
def test_an_attack_that_may_change_nothing_leaves_natural_accuracy(name):
    count = 60 if name == "lbfgs" else COUNT
    inputs, labels = samples(count)
    natural = normal_cdf(Noisy().lead(inputs, labels) / NOISE)
    assert 0.7 < natural.mean() < 0.9
    found = withstood(attacks(0.0)[name], count=count)
    assert found == close_to(natural)


@pytest.mark.parametrize("name", ["fgsm", "bim", "last iterate", "ilcm", "pgd", "substitute", "torchattacks"])
def test_the_best_example_of_a_linear_victim_counts_by_one_draw(name):
    inputs, labels = samples()
    net, eps = Noisy(), 0.1
    expected = normal_cdf((net.lead(inputs, labels) - eps * net.weights.detach().abs().sum()) / NOISE)
    assert 0.1 < expected.mean() < 0.6
    assert withstood(attacks(eps)[name]) == close_to(expected)


def test_targets():
    inputs, labels = samples()
    targets = 1 - labels
    natural = normal_cdf(Noisy().lead(inputs, labels) / NOISE)
    assert withstood(PGD(0.0, steps=4), targets=targets) == close_to(natural)


def test_draws_of_its_own():
    inputs, labels = samples(300)
    net, batch = Noisy(), Samples.checked(inputs, labels)
    shares = normal_cdf(-net.lead(inputs, labels) / NOISE)
    with frozen_eval(net), torch.random.fork_rng():
        torch.manual_seed(0)
        counts = fooling_draws(net, inputs, batch, draws=40)
        assert float(counts.double().mean()) / 40 == close_to(shares.repeat(40))
        assert not fresh_verdicts(net, inputs, batch).equal(fresh_verdicts(net, inputs, batch))


def test_the_smallest_change_is_no_lucky_draw():
    inputs, labels = samples(12)
    net = Noisy(0.05)
    with pytest.warns(StochasticVictimWarning):
        result = seeded(lambda: LBFGS(search_steps=5, max_iterations=8)(net, inputs, labels))
    exact = net.lead(inputs, labels) / net.weights.detach().norm()
    sizes = (result.examples - inputs).flatten(1).norm(dim=1)
    assert (sizes > exact - 2 * 0.05 / net.weights.detach().norm()).all()  # a draw of -2 sigma would be luck
    assert result.details["l2"].isnan().equal(~result.fooled)
    assert 0 < result.fooled.sum() < 12  # they lie near the border


def test_what_survives_transformations_is_a_share_of_draws_already():
    attack = ExpectationOverTransformations(0.0, steps=1, draws=1, transforms=nn.Identity(), evaluation_draws=25)
    inputs, labels = samples(200)
    clear = Noisy().lead(inputs, labels) > NOISE  # at one sigma most of 25 draws are hardly ever wrong
    with pytest.warns(StochasticVictimWarning):
        result = seeded(lambda: attack(Noisy(), inputs[clear], labels[clear]))
    assert not result.fooled.any()
    assert 0 < result.details["survival"].mean() < 0.2


class BatchStatistics(nn.Module):
    """What it predicts for a sample depends on the batch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(SIZE, track_running_stats=False)
        self.net = Noisy(0)

    def forward(self, inputs):
        return self.net(0.5 + 0.2 * self.norm(inputs.flatten(1)))


def test_statistics_of_the_batch():
    inputs, labels = samples(100)
    net = BatchStatistics().eval()
    natural = net(inputs).argmax(1) == labels
    with pytest.warns(StochasticVictimWarning, match="statistics of the batch"):
        result = PGD(0.0, steps=4)(net, inputs, labels)
    assert (~result.fooled).equal(natural)
    assert 0.5 < natural.double().mean() < 1


@pytest.mark.parametrize("net", [Noisy(), Noisy(0.02)])
def test_paths_end_where_most_passes_say_so(net):
    inputs, labels = samples(200)
    exact = adversarial_paths(Noisy(0), inputs, labels, max_steps=60)
    with pytest.warns(StochasticVictimWarning, match="most of nine further passes"):
        found = seeded(lambda: adversarial_paths(net, inputs, labels, max_steps=60, keep_ends=True))
    assert found.stochastic
    assert not exact.stochastic
    # A step of 0.01 takes |w|_1 / 100 off the lead; most of nine draws are wrong from about there on.
    slack = 1.5 * net.noise / (0.01 * net.weights.detach().abs().sum()) + 1
    assert ((found.length - exact.length).abs() <= slack).double().mean() > 0.97
    shares = normal_cdf(-net.lead(found.ends, labels) / net.noise)[found.reached]
    assert (shares > 0.25).double().mean() > 0.97  # the first of sixty draws would often have 0.05


def test_traces_follow_the_same_paths():
    inputs, labels = samples(3)
    with pytest.warns(StochasticVictimWarning):
        traces = seeded(lambda: path_trace(Noisy(0.02), inputs, labels))
    for trace, point, label in zip(traces, inputs, labels, strict=True):
        assert trace.reached
        assert trace.points[0].equal(point)
        assert len(trace.probabilities) == len(trace.points)
        values = (trace.points - 0.5).flatten(1) @ Noisy().weights.detach()  # the scores are 0 and this, and noise
        assert (trace.probabilities[:, 1].logit() - values).abs().max() < 0.1
        assert trace.predictions[-1] != label


def test_planes_say_that_they_show_draws():
    inputs, _ = samples(3)
    with pytest.warns(StochasticVictimWarning, match="each cell of a decision plane shows one draw"):
        decision_plane(Noisy(), *inputs, resolution=5)


def test_a_curve_counts_each_radius_by_its_own_examples():
    radii, (inputs, labels) = [0.0, 0.03, 0.1], samples()
    net = Noisy()
    lead, reach = net.lead(inputs, labels), net.weights.detach().abs().sum()
    with pytest.warns(StochasticVictimWarning, match="each radius"):
        curve = seeded(lambda: robustness_curve(PGD(0.1, steps=4), radii, net, inputs, labels))
    for radius, share in zip(radii, curve.accuracy.tolist(), strict=True):
        assert share == close_to(normal_cdf((lead - radius * reach) / NOISE))
    assert (curve.fooled[0] & ~curve.fooled[2]).any()  # draws of their own
    first = torch.where(curve.fooled.any(dim=0), curve.fooled.long().argmax(dim=0), len(radii))
    assert curve.broken_at.equal(first)
    sizes = (curve.examples - inputs).abs().flatten(1).amax(dim=1)
    assert (sizes[first < 3] <= torch.tensor(radii)[first[first < 3]] + 1e-6).all()
    assert (sizes[first == 3] == 0).all()


def test_a_curve_takes_what_is_known_already():
    inputs, labels = samples(100)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        known = PGD(0.1, steps=4)(Noisy(), inputs, labels, stochastic=True)
        curve = robustness_curve(PGD(0.1, steps=4), [0.1], Noisy(), inputs, labels, known=known, stochastic=True)
    assert curve.fooled[0].equal(known.fooled)


# --- finding out -----------------------------------------------------------------------------------------------------


class Dropping(nn.Module):
    """The usual mistake: this dropout is always on."""

    def forward(self, inputs):
        return functional.dropout(inputs.flatten(1), 0.1)


class Flipping(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, inputs):
        flipped = torch.rand(len(inputs), 1, 1, 1) < self.share
        return torch.where(flipped, inputs.flip(-1), inputs).flatten(1)


class OwnStream(nn.Module):
    def __init__(self):
        super().__init__()
        self.stream = torch.Generator().manual_seed(0)

    def forward(self, inputs):
        return inputs.flatten(1) + torch.rand(SIZE, generator=self.stream)


class SeededAnew(nn.Module):
    def forward(self, inputs):
        return inputs.flatten(1) + torch.rand(SIZE, generator=torch.Generator().manual_seed(0))


class Idle(nn.Module):
    """Draws, and makes nothing of it."""

    def forward(self, inputs):
        return inputs.flatten(1) + 0 * torch.rand(SIZE)


class Growing(nn.Module):
    """Each pass changes what the next one says."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(SIZE))

    def forward(self, inputs):
        self.mean.mul_(0.9).add_(0.1 * inputs.detach().flatten(1).mean(dim=0))
        return inputs.flatten(1) * self.mean


VICTIMS = {
    "noise": (Noisy(), True),
    "dropout that stays on": (Dropping(), True),
    "rare flips": (Flipping(0.1), True),
    "frequent flips": (Flipping(0.5), True),
    "own stream": (OwnStream(), True),
    "batch statistics": (BatchStatistics(), True),
    "changing buffer": (Growing(), True),
    "seeded anew": (SeededAnew(), False),
    "idle draws": (Idle(), False),
    "no flips": (Flipping(0.0), False),
    "ordinary": (nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(SIZE, 3)), False),
}


@pytest.mark.parametrize("name", VICTIMS)
def test_who_is_stochastic(name):
    net, expected = VICTIMS[name]
    inputs = torch.rand(9, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    for seed in range(5):
        with frozen_eval(net), torch.random.fork_rng():
            torch.manual_seed(seed)
            assert is_stochastic(net, inputs) is expected
    assert not is_stochastic(net, inputs[:0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples(count):
    inputs, labels = samples(count)
    with frozen_eval(Noisy()):
        assert is_stochastic(Noisy(), inputs)
        assert not is_stochastic(Noisy(0), inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(0.1, steps=2)(Noisy(0), inputs, labels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rounding_is_no_randomness(dtype, trained, digits):
    net = nn.Sequential(trained).to(torch.float64 if dtype == torch.float64 else torch.float32)
    inputs = digits[0][:4].to(torch.float64 if dtype == torch.float64 else torch.float32)
    try:
        with frozen_eval(net), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert net(inputs).dtype == dtype
            assert not is_stochastic(net, inputs)
            shaken = lambda x: net(x) * (1 + torch.finfo(dtype).eps * torch.randn(len(x), 1))  # noqa: E731
            assert not is_stochastic(shaken, inputs)
    finally:
        trained.float()


def test_a_victim_that_is_not_says_the_same_as_ever(trained, digits, unchanged):
    inputs, labels = digits[0][1200:1260], digits[1][1200:1260]
    for attack in (FGSM(0.1), PGD(0.1, steps=3, restarts=1), FiniteDifferences(0.1, steps=1)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = unchanged(trained, lambda attack=attack: attack(trained, inputs, labels))
        told = attack(trained, inputs, labels, stochastic=False)
        assert found.examples.equal(told.examples)
        assert found.fooled.equal(told.fooled)
        assert found.criterion == told.criterion == "any iterate"
