from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    CleanLabelPerturbation,
    FromFile,
    LabelFlips,
    NewClass,
    NextClass,
    RandomPoints,
    ToClass,
    TrainingSet,
)
from tests.poisons.golden import check_golden_points, golden_data


def linear_problem(low=0.2, high=0.8, width=6):
    """Two classes that a linear network tells apart by the first half of the coordinates."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    inputs = low + (high - low) * torch.rand(40, width, generator=stream)
    inputs[:, : width // 2] += 0.15 * (2 * labels[:, None] - 1)
    network = nn.Linear(width, 2)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[1, : width // 2] = torch.arange(1.0, width // 2 + 1)
        network.weight[1, -1] = -0.5
        network.weight[0] = -network.weight[1]
        network.bias.copy_(torch.tensor([1.0, -1.0]) * 0.5 * network.weight[1].sum())
    return TrainingSet(labels, 2, "linear", TensorDataset(inputs, labels), network=network), network


def confident(times):
    """The same problem, its network so many times as sure."""
    data, network = linear_problem()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(times)
    return data, network


def sizes(points, data, norm):
    delta = (points.inputs.double() - data.inputs[points.index].double()).flatten(1)
    return delta.norm(dim=1) if norm == "l2" else delta.abs().amax(dim=1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("toward", [None, NextClass()])
def test_the_closed_form_of_a_linear_network(norm, toward):
    """Of two classes the loss depends on w x alone: the best step in the ball is eps w / ||w||, or eps sign(w)."""
    data, network = linear_problem()
    strategy = CleanLabelPerturbation(RandomPoints(count=12), eps=0.05, toward=toward, norm=norm)
    points = strategy.craft(data, seed=0)
    weights = (network.weight[1] - network.weight[0]).detach().double()
    ascent = weights / weights.norm() if norm == "l2" else weights.sign()
    sign = 1 - 2 * points.old_label.double()  # down the margin of the own class
    wanted = data.inputs[points.index].double() + 0.05 * sign[:, None] * ascent
    assert torch.allclose(points.inputs.double(), wanted, atol=1e-5)
    assert torch.equal(points.old_label, points.new_label)
    assert torch.equal(points.old_label, data.labels[points.index])
    assert (sizes(points, data, norm) <= 0.05).all()
    assert torch.allclose(points.distance, sizes(points, data, norm))
    assert points.provenance["norm"] == norm


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("total", [0.0, 0.11, 0.5, 100.0])
def test_both_budgets_hold_for_the_stored_numbers(norm, total):
    data, _ = linear_problem()
    everything = RandomPoints(count=20)
    points = CleanLabelPerturbation(everything, eps=0.05, total=total, norm=norm).craft(data, seed=0)
    spent = sizes(points, data, norm)
    assert (spent <= 0.05).all()
    assert float(spent.sum()) <= total
    assert float(spent.sum()) >= min(total, 20 * 0.05) * (1 - 1e-3)
    assert (spent > 0).all()


def test_no_total_is_exceeded_by_rounding():
    data, _ = linear_problem()
    for total in torch.linspace(0.001, 0.2, 60).tolist():
        strategy = CleanLabelPerturbation(RandomPoints(count=6), eps=0.05, total=total, steps=4)
        assert float(sizes(strategy.craft(data, seed=0), data, "l2").sum()) <= total


def test_the_total_goes_to_those_that_gain_most():
    data, network = linear_problem()
    whole = CleanLabelPerturbation(RandomPoints(count=20), eps=0.05).craft(data, seed=0)
    part = CleanLabelPerturbation(RandomPoints(count=20), eps=0.05, total=0.22).craft(data, seed=0)
    labels = whole.old_label
    gain = cross_entropy(network(whole.inputs), labels, reduction="none")
    gain = gain - cross_entropy(network(data.inputs[whole.index]), labels, reduction="none")
    best = set(whole.index[gain.argsort(descending=True)[:5]].tolist())
    assert set(part.index.tolist()) == best
    assert min(part.distance.tolist()) == pytest.approx(0.02, rel=1e-3)  # what four whole ones leave


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("times", [1, 3, 10, 40])
def test_a_total_that_suffices_is_as_good_as_none(norm, times):
    """Ten times as sure, the loss of some points is 0 and stays so: they move all the same."""
    data, _ = confident(times)
    strategy = CleanLabelPerturbation(RandomPoints(count=40), eps=0.05, norm=norm)
    free = strategy.craft(data, seed=0)
    for total in (40 * 0.05 + 1e-4, 1e6):
        assert replace(strategy, total=total).craft(data, seed=0).same_points(free)


def test_a_small_gain_is_a_gain():
    data, network = confident(3)
    strategy = CleanLabelPerturbation(RandomPoints(count=40), eps=0.05)
    whole, part = strategy.craft(data, seed=0), replace(strategy, total=39.5 * 0.05).craft(data, seed=0)
    network = network.double()
    before, after = (
        cross_entropy(network(inputs.double()), whole.old_label, reduction="none")
        for inputs in (data.inputs[whole.index], whole.inputs)
    )
    gain = (after - before).detach()
    assert 0 < float(gain.min()) < float(gain.max()) / 100_000
    assert torch.equal(part.index, whole.index)
    least = int(gain.argmin())
    assert float(part.distance[least]) == pytest.approx(0.025, rel=1e-3)
    others = torch.arange(40) != least
    assert torch.allclose(part.inputs[others], whole.inputs[others], atol=1e-7)


def test_the_surrogate_is_fooled_and_inputs_stay_in_the_box():
    data, network = linear_problem(0.0, 1.0)
    data = TrainingSet(
        data.labels, 2, dataset=TensorDataset(data.inputs.clamp(0, 1), data.labels), network=data.network
    )
    points = CleanLabelPerturbation(RandomPoints(count=30), eps=0.6, norm="linf", toward=NextClass()).craft(data, 0)
    assert points.inputs.min() >= 0
    assert points.inputs.max() <= 1
    assert (network(points.inputs).argmax(dim=1) != points.old_label).all()


def test_a_point_that_has_arrived_goes_no_further():
    """Towards class 0, whose score is highest at c: the ball of radius 1 holds c, 0.3 away."""

    class Peak(nn.Module):
        def __init__(self):
            super().__init__()
            self.centre = nn.Parameter(torch.full((4,), 0.5))

        def forward(self, inputs):
            away = (inputs - self.centre).square().sum(dim=1)
            return torch.stack([-20 * away, torch.full_like(away, -0.5)], dim=1)

    labels = torch.arange(20) % 2
    inputs = torch.full((20, 4), 0.5) + 0.15 * labels[:, None] * torch.tensor([1.0, -1.0, 1.0, 1.0])
    data = TrainingSet(labels, 2, dataset=TensorDataset(inputs, labels), network=Peak())
    strategy = CleanLabelPerturbation(RandomPoints(count=5), eps=1.0, steps=100, toward=ToClass(0))
    points = strategy.craft(data, seed=0)
    assert (points.inputs - 0.5).norm(dim=1).max() < 0.03  # a step is 0.025 long
    assert points.distance.max() < 0.33


def test_toward_one_class_only_others_move():
    data, _ = linear_problem()
    points = CleanLabelPerturbation(RandomPoints(count=10), eps=0.05, toward=ToClass(1)).craft(data, seed=0)
    assert set(points.old_label.tolist()) == {0}


def test_a_surrogate_trained_on_the_spot_and_vectors_of_any_size():
    data, _ = linear_problem()
    centred = TrainingSet(
        data.labels, 2, dataset=TensorDataset(4 * (data.inputs - 0.5), data.labels), fingerprint="centred"
    )
    strategy = CleanLabelPerturbation(RandomPoints(count=4), eps=1.5, clip=False)
    points = strategy.craft(centred, seed=0)
    assert len(points) == 4
    assert torch.allclose(points.distance, torch.tensor(1.5).double(), rtol=1e-3)
    assert strategy.craft(centred, seed=0).same_points(points)
    with pytest.raises(UserError, match=r"inputs must lie in \[0, 1\], got .*set clip=false"):
        CleanLabelPerturbation(RandomPoints(count=4), eps=0.5).craft(centred, seed=0)


def test_batches_do_not_matter(monkeypatch):
    data, _ = linear_problem()
    strategy = CleanLabelPerturbation(RandomPoints(count=20), eps=0.05, total=0.3)
    whole = strategy.craft(data, seed=0)
    monkeypatch.setattr("lightning_poison.poisons.points.clean_label._CHUNK", 3)
    parts = strategy.craft(data, seed=0)
    assert torch.equal(whole.index, parts.index)
    assert torch.allclose(whole.inputs, parts.inputs, atol=1e-6)


def test_what_is_refused(tmp_path):
    data, _ = linear_problem()
    with pytest.raises(UserError, match="toward must name a class that the surrogate knows"):
        CleanLabelPerturbation(RandomPoints(count=2), toward=NewClass()).craft(data, seed=0)
    with pytest.raises(UserError, match=r"eps must lie in \[0, 1\]"):
        CleanLabelPerturbation(RandomPoints(count=2), eps=8, norm="linf")
    with pytest.raises(UserError, match="norm must be one of l2, linf"):
        CleanLabelPerturbation(RandomPoints(count=2), norm="l1")
    with pytest.raises(UserError, match="total must lie in"):
        CleanLabelPerturbation(RandomPoints(count=2), total=-1.0)
    with pytest.raises(UserError, match="count must be at most the 40 points"):
        CleanLabelPerturbation(RandomPoints(count=41)).check(data, 0)
    for arguments, message in (
        ({"select": "RandomPoints"}, r"select must be a Selector such as RandomPoints\(count=10\), got 'RandomPoints'"),
        ({"select": LabelFlips(RandomPoints(count=2))}, "select must be a Selector"),
        ({"toward": "NextClass"}, "toward must be a Relabelling"),
        ({"surrogate": "last.ckpt"}, "surrogate must be a Surrogate"),
        ({"clip": "yes"}, "clip must be true or false, got 'yes'"),
    ):
        with pytest.raises(UserError, match=message):
            CleanLabelPerturbation(**{"select": RandomPoints(count=2), **arguments})
    (tmp_path / "flips.csv").write_text("index,old_label,new_label\n3,1,0\n")
    listed = CleanLabelPerturbation(FromFile(str(tmp_path / "flips.csv")), eps=0.05).craft(data, seed=0)
    assert listed.index.tolist() == [3]
    assert listed.new_label.tolist() == [1]


def sure_nearest_mean_network(data):
    """A linear network without training: the nearest class mean, ten times as sure."""
    means = torch.stack([data.inputs[data.labels == label].flatten(1).mean(dim=0) for label in range(10)])
    linear = nn.Linear(64, 10)
    with torch.no_grad():
        linear.weight.copy_(10 * means)
        linear.bias.copy_(-5 * means.square().sum(dim=1))
    return nn.Sequential(nn.Flatten(), linear)


def test_the_same_points_on_every_machine():
    data = golden_data()
    data = replace(data, network=sure_nearest_mean_network(data))
    strategy = CleanLabelPerturbation(RandomPoints(per_class=2), eps=0.5, total=6.0, toward=NextClass())
    points = strategy.craft(data, seed=0)
    recorded = check_golden_points("CleanLabelPerturbation", points, atol=1e-4)
    assert torch.allclose(points.distance, recorded.distance, atol=1e-4)
