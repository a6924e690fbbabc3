"""Input smoothing against the closed form of a half-space, and its error rate counted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import nn

from lightning_poison.certificates.input_smoothing import InputSmoothing, SmoothedPoints, smoothing_section
from lightning_poison.certificates.input_smoothing.smoothing import Looks, NoisyVotes, l2_radius
from lightning_poison.errors import UserError


class HalfSpaces(nn.Module):
    """Class 1 where w x + b > 0: smoothed by N(0, s^2 I) its radius is the distance |w x + b| / |w|."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -4.0, 0.0, 12.0]))
        self.calls = 0

    def forward(self, inputs):
        self.calls += len(inputs)
        score = inputs.flatten(1) @ self.weight - 1.0
        return torch.stack([-score, score, torch.full_like(score, -1e9)], dim=1)


def points(count=40, seed=0):
    return torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


def distances(inputs):
    net = HalfSpaces()
    with torch.no_grad():
        scores = net(inputs)[:, 1].double() / 13.0
    return scores.abs(), (scores > 0).long()


@pytest.mark.parametrize("stop_early", [False, True])
def test_radii_are_close_to_those_of_a_half_space_and_below(stop_early):
    inputs, sigma = points(), 0.3
    exact, classes = distances(inputs)
    smoothing = InputSmoothing(sigma, n=20_000, alpha=1e-6, stop_early=stop_early)
    certificate = smoothing.certify(HalfSpaces(), inputs, radii=[0.2])
    made = ~certificate.abstained
    assert made.double().mean() > 0.9
    assert (certificate.prediction[made] == classes[made]).all()
    assert (certificate.radius <= exact).all()
    if stop_early:
        assert ((certificate.radius >= 0.2) == (exact >= 0.2))[(exact - 0.2).abs() > 0.02].all()
        assert certificate.draws.double().mean() < 10_000
    else:
        middle = (exact > 0.1) & (exact < 0.6)
        assert (certificate.radius[middle] > 0.8 * exact[middle]).all()
        assert (certificate.draws == 20_100).all()


def test_votes_depend_on_the_sample_and_not_on_batches():
    inputs, net = points(7), HalfSpaces()
    smoothing = InputSmoothing(0.3, n=1050, batch_size=1000)
    whole = smoothing.certify(net, inputs, sample_ids=torch.arange(10, 17))
    other = InputSmoothing(0.3, n=1050, batch_size=37)
    for row in range(7):
        alone = other.certify(net, inputs[row : row + 1], sample_ids=torch.tensor([10 + row]))
        assert alone.radius.equal(whole.radius[row : row + 1])
        assert alone.prediction.equal(whole.prediction[row : row + 1])
    assert not smoothing.certify(net, inputs).radius.equal(whole.radius)
    assert not InputSmoothing(0.3, n=1050, seed=1).certify(net, inputs, torch.arange(10, 17)).radius.equal(whole.radius)


def test_noise_has_the_right_size_and_no_copy_comes_twice():
    seen = []

    class Listener(nn.Module):
        def forward(self, inputs):
            seen.append(inputs.clone())
            return torch.zeros(len(inputs), 2)

    votes = NoisyVotes(Listener(), torch.full((2, 5), 0.5), torch.arange(2), sigma=0.7, seed=0, batch_size=250)
    seen.clear()
    votes.count(torch.tensor([0, 1]), 0, 100, "choose")
    votes.count(torch.tensor([0, 1]), 0, 1000, "certify")
    votes.count(torch.tensor([0, 1]), 1000, 1330, "certify")
    noise = torch.cat(seen) - 0.5
    assert len(noise) == 2 * (100 + 1330)
    assert len(noise[:, 0].unique()) == len(noise)
    assert float(noise.std()) == pytest.approx(0.7, rel=0.03)
    assert abs(float(noise.mean())) < 0.03


def test_one_copy_more_is_counted_once():
    class Known(nn.Module):
        def forward(self, inputs):
            return torch.nn.functional.one_hot((inputs[:, 0] > 0).long(), 4).float()

    inputs = torch.tensor([[-100.0], [100.0], [0.0]])
    votes = NoisyVotes(Known(), inputs, torch.arange(3), 1.0, 0, batch_size=64)
    advanced = []
    counts = votes.count(torch.tensor([2, 0, 1]), 0, 233, "certify", advanced.append)
    assert counts.sum(1).tolist() == [233] * 3
    assert counts[1].tolist() == [233, 0, 0, 0]
    assert counts[2].tolist() == [0, 233, 0, 0]
    assert 80 < counts[0, 0] < 153
    assert sum(advanced) == 3 * 233


class Binomial:
    """Votes of points whose class 1 has a known probability."""

    def __init__(self, share, seed):
        self.share, self.stream, self.asked = share, np.random.default_rng(seed), []

    def count(self, rows, first, last, stream):
        self.asked.append((stream, first, last))
        votes = torch.from_numpy(self.stream.binomial(last - first, self.share[rows.numpy()]))
        return torch.stack([last - first - votes, votes], 1)


@pytest.mark.parametrize("radii", [(), (0.1, 0.3, 0.5, 1.0)])
@pytest.mark.parametrize("share", [0.5, 0.62, 0.9, 0.99])
def test_certificates_are_wrong_no_more_often_than_alpha(share, radii):
    trials, alpha = 4000, 0.2
    smoothing = InputSmoothing(sigma=0.5, n=5000, alpha=alpha)
    votes = Binomial(np.full(trials, share), seed=round(100 * share))
    certificate = smoothing._certify(votes, torch.arange(trials), radii)
    exact = 0.5 * norm.ppf(share)
    wrong = int(((certificate.radius > exact) & (certificate.prediction == 1)).sum())
    wrong += int((certificate.prediction == 0).sum())
    assert binomtest(wrong, trials, alpha, alternative="greater").pvalue > 1e-6
    assert {stream for stream, *_ in votes.asked} == {"choose", "certify"}
    spans = [(first, last) for stream, first, last in votes.asked if stream == "certify"]
    assert all(before[1] == after[0] for before, after in pairwise(spans)), "no copy counts twice"


def test_looking_early_spares_copies_and_decides_alike():
    share = np.array([0.5, 0.7, 0.9, 0.97, 0.999, 1.0] * 50)
    full = InputSmoothing(0.5, n=50_000, stop_early=False)._certify(Binomial(share, 0), torch.arange(300), ())
    early = InputSmoothing(0.5, n=50_000)._certify(Binomial(share, 0), torch.arange(300), [0.25, 0.5, 1.0])
    assert early.draws.sum() < 0.4 * full.draws.sum()
    for radius in (1e-9, 0.25, 0.5, 1.0):
        shares = [float((certificate.radius >= radius).double().mean()) for certificate in (early, full)]
        assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_levels_add_up_to_alpha():
    for n in (100, 650, 10_000, 100_000, 123_457):
        looks = Looks(n, 0.001, 1.0, [0.5])
        assert sum(looks.levels) <= 0.001 * (1 + 1e-12)
        assert looks.sizes[-1] == n
        assert all(size % 100 == 0 for size in looks.sizes[:-1])
        assert sorted(set(looks.sizes)) == looks.sizes


def test_a_radius_is_rounded_down_and_a_tie_has_none():
    error = torch.tensor([1e-12, 0.01, 0.3, 0.5 - 1e-16, 0.5, 0.7, 1.0], dtype=torch.float64)
    radius = l2_radius(error, 0.25)
    assert (radius[:3].numpy() < 0.25 * norm.isf(error[:3].numpy())).all()
    assert radius[:3].numpy() == pytest.approx(0.25 * norm.isf(error[:3].numpy()), rel=1e-10)
    assert radius[3:].tolist() == [-1.0] * 4


def test_predict_abstains_unless_one_class_is_clearly_ahead():
    share = np.array([0.5] * 500 + [0.9] * 20)
    predicted = InputSmoothing(n=1000, alpha=0.01)._predict(Binomial(share, 3), torch.arange(520)).prediction
    assert (predicted[500:] == 1).all()
    assert (predicted[:500] != -1).double().mean() < 0.03
    inputs = points()
    exact, classes = distances(inputs)
    clear = exact > 0.1
    assert InputSmoothing(0.3, n=1000).predict(HalfSpaces(), inputs)[clear].equal(classes[clear])


@pytest.mark.parametrize("n", [10, 50, 200])
def test_predict_is_a_two_sided_binomial_test(n):
    class Fixed:
        def count(self, *_):
            votes = torch.arange(n + 1)
            return torch.stack([votes, n - votes], 1)

    predicted = InputSmoothing(n=n, alpha=0.01)._predict(Fixed(), torch.arange(n + 1)).prediction.tolist()
    for votes, one in enumerate(predicted):
        sure = binomtest(votes, n, 0.5).pvalue <= 0.01
        assert one == ((0 if votes > n - votes else 1) if sure else -1)


def test_the_model_and_the_random_state_are_left_alone():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    net[2].weight.requires_grad_(False)
    state = torch.get_rng_state()
    with torch.inference_mode():
        InputSmoothing(n=200).certify(net, points(3))
    assert state.equal(torch.get_rng_state())
    assert net.training
    assert net[1].training
    assert net[2].bias.requires_grad
    assert not net[2].weight.requires_grad


def test_nothing_to_certify():
    certificate = InputSmoothing(n=100).certify(HalfSpaces(), points(0))
    assert len(certificate) == 0
    assert len(InputSmoothing(n=100).predict(HalfSpaces(), points(0))) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": -1.0}, "sigma must lie in"),
        ({"alpha": 0.0}, "alpha must lie strictly between 0 and 1"),
        ({"alpha": 1.0}, "alpha must lie strictly between 0 and 1"),
        ({"n": 0}, "n must be an integer of at least 1"),
        ({"n0": 0}, "n0 must be an integer of at least 1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(UserError, match=message):
        InputSmoothing(**arguments)


def test_broken_inputs_are_refused():
    with pytest.raises(UserError, match="inputs must be finite"):
        InputSmoothing(n=100).certify(HalfSpaces(), torch.full((1, 1, 2, 2), torch.nan))
    with pytest.raises(UserError, match="one entry for each"):
        InputSmoothing(n=100).certify(HalfSpaces(), points(2), torch.arange(3))
    with pytest.raises(UserError, match="batch of floats"):
        InputSmoothing(n=100).certify(HalfSpaces(), torch.zeros(2, 4, dtype=torch.int64))


def test_points_of_several_ranks_count_once():
    smoothing, net, inputs = InputSmoothing(0.3, n=500), HalfSpaces(), points(5)
    labels = distances(inputs)[1]
    whole = SmoothedPoints(torch.arange(5), labels, smoothing.certify(net, inputs))
    parts = []
    for rows in ([3, 0], [4, 1, 2], [0]):
        certificate = smoothing.certify(net, inputs[rows], sample_ids=torch.tensor(rows))
        parts.append(SmoothedPoints(torch.tensor(rows), labels[rows], certificate))
    merged = SmoothedPoints.merge(parts)
    assert merged.csv() == whole.csv()
    assert merged.csv().splitlines()[0] == "index,label,prediction,radius,draws"
    values = merged.values([0.0, 0.1], "_x")
    assert list(values) == ["smooth/acc_at_0_x", "smooth/acc_at_0.1_x", "smooth/radius_mean_x", "smooth/abstained_x"]
    section = smoothing_section(merged, smoothing, [0.0, 0.1], "Input smoothing")
    assert len(section.tables[0].rows) == 2
    assert "fails with probability at most 0.001" in section.text[-1]
