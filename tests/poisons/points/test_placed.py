from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    GivenMeans,
    NewClass,
    PlacedPoisons,
    RandomOther,
    ToClass,
    TrainingSet,
)
from tests.poisons.golden import check_golden_points, golden_data


def gaussians(d=3, n=40, mu=2.0):
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    inputs = torch.randn(n, d, generator=stream) + mu * (2 * labels[:, None] - 1)
    return TrainingSet(labels, 2, "toy", TensorDataset(inputs, labels))


@pytest.mark.parametrize("distance", [0.0, 0.3, 25.0])
def test_they_lie_at_the_distance_from_the_means(distance):
    data = gaussians()
    points = PlacedPoisons(distance=distance, per_class=5).craft(data, seed=1)
    assert points.index.tolist() == [-1] * 10
    for label in (0, 1):
        mean = data.inputs[data.labels == label].double().mean(dim=0)
        mine = points.inputs[points.old_label == label].double()
        assert torch.allclose((mine - mean).norm(dim=1), torch.tensor(distance).double(), atol=1e-6 * (1 + distance))
        assert (points.new_label[points.old_label == label] == 1 - label).all()


def test_directions_are_uniform_on_the_sphere():
    """Archimedes: on the sphere in three dimensions every coordinate is uniform on [-1, 1]."""
    strategy = PlacedPoisons(distance=1.0, per_class=400, means=GivenMeans([[0.0] * 3, [0.0] * 3]))
    inputs = strategy.craft(gaussians(), seed=0).inputs.double()
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))
    for coordinates in (inputs.T, (inputs @ rotation).T):
        for coordinate in coordinates:
            assert kstest(coordinate.numpy(), "uniform", args=(-1, 2)).pvalue > 0.001


def test_rays_depend_on_seed_class_and_number_alone():
    data, means = gaussians(), GivenMeans([[0.0] * 3, [0.0] * 3])
    few = PlacedPoisons(distance=1.0, per_class=2, means=means).craft(data, seed=0)
    many = PlacedPoisons(distance=3.0, per_class=4, means=means).craft(data, seed=0)
    assert torch.allclose(3 * few.inputs, many.inputs[[0, 1, 4, 5]], atol=1e-6)
    other = PlacedPoisons(distance=1.0, per_class=2, means=means).craft(data, seed=1)
    assert not torch.allclose(few.inputs, other.inputs, atol=0.1)
    torch.manual_seed(99)
    assert PlacedPoisons(distance=1.0, per_class=2, means=means).craft(data, seed=0).same_points(few)


def test_labels_as_the_relabelling_says():
    third = PlacedPoisons(distance=1.0, per_class=1, relabel=NewClass())
    assert third.num_classes_after(2) == 3
    assert third.craft(gaussians(), seed=0).new_label.tolist() == [2, 2]
    to_one = PlacedPoisons(distance=1.0, per_class=3, relabel=ToClass(1)).craft(gaussians(), seed=0)
    assert to_one.old_label.tolist() == [0, 0, 0]
    drawn = PlacedPoisons(distance=1.0, per_class=20, relabel=RandomOther()).craft(golden_data(), seed=0)
    assert (drawn.new_label != drawn.old_label).all()
    assert len(drawn.new_label.unique()) == 10


def test_what_is_refused():
    data = gaussians()
    for arguments, message in (
        ({"classes": [2]}, r"classes must lie in \[0, 1\], got 2"),
        ({"classes": [0, 0]}, "classes must differ"),
        ({"classes": [1], "relabel": ToClass(1)}, "class 1 cannot be mislabelled"),
        ({"distance": -1.0}, "distance must lie in"),
        ({"distance": 1e39}, "distance must lie in"),
        ({"means": GivenMeans([[0.0] * 3, [0.0] * 2])}, "must hold 3 numbers for class 1"),
    ):
        with pytest.raises(UserError, match=message):
            PlacedPoisons(**{"distance": 1.0, **arguments}).craft(data, seed=0)
    for arguments, message in (
        ({"relabel": None}, r"relabel must be a Relabelling such as NextClass\(\), got None"),
        ({"relabel": "NextClass"}, "relabel must be a Relabelling .* got 'NextClass'"),
        ({"means": [[0.0] * 3]}, r"means must be TrainingMeans\(\) or GivenMeans"),
        ({"classes": 1}, r"classes must be a list such as \[0, 1\], got 1"),
    ):
        with pytest.raises(UserError, match=message):
            PlacedPoisons(**{"distance": 1.0, **arguments})
    for values, message in (
        ("abc", "GivenMeans.values must hold a list of numbers for each class, got 'abc'; .* write"),
        ([[0.0], 3], "must hold a list of numbers for class 1, got 3"),
        ([[0.0], [float("nan")]], "GivenMeans.values of class 1 must be a finite number, got nan"),
    ):
        with pytest.raises(UserError, match=message):
            GivenMeans(values)
    absent = TrainingSet(data.labels, 3, dataset=data.dataset)
    with pytest.raises(UserError, match="class 2 has no training points, so no mean"):
        PlacedPoisons(distance=1.0).craft(absent, seed=0)
    with pytest.raises(UserError, match=r"classes must lie in \[0, 1\], got 2"):
        PlacedPoisons(distance=1.0, classes=[2]).check(data, 0)


def test_none_at_all():
    assert len(PlacedPoisons(distance=1.0, per_class=0).craft(gaussians(), seed=0)) == 0


def test_the_same_points_on_every_machine():
    points = PlacedPoisons(distance=1.5, per_class=2, classes=[0, 3, 9]).craft(golden_data(), seed=0)
    recorded = check_golden_points("PlacedPoisons", points, atol=1e-6)
    assert torch.equal(points.distance, recorded.distance)
