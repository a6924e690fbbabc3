"""Arguments of the wrong kind are refused when a strategy is made, in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lightning_poison.errors import UserError
from lightning_poison.functional.kernel_fit import KernelFit
from lightning_poison.nets import MLP
from lightning_poison.poisons import (
    ClassGraphIntersection,
    ColouringScore,
    DominatingSet,
    FarthestFromBoundary,
    FeatureSpace,
    ForgettingEvents,
    FromFile,
    GumbelFlips,
    HighestLoss,
    InfluenceScore,
    InputSpace,
    LabelFlips,
    LabelNoise,
    Medoids,
    MetaFlips,
    NearestToBoundary,
    NextClass,
    PathLengthBucket,
    PlacedPoisons,
    RandomPoints,
    TrainingSet,
    TrajectoryMatching,
)
from lightning_poison.poisons.description import arguments, describe
from lightning_poison.poisons.points.placed import GivenMeans

THROUGH = [
    FarthestFromBoundary,
    FeatureSpace,
    HighestLoss,
    InfluenceScore,
    NearestToBoundary,
    PathLengthBucket,
    TrajectoryMatching,
]
TRAINING = [ColouringScore, ForgettingEvents, TrajectoryMatching]


@pytest.mark.parametrize("kind", THROUGH)
@pytest.mark.parametrize(("given", "shown"), [(nn.Linear(4, 2), "Linear"), ("net.ckpt", "'net.ckpt'")])
def test_a_surrogate_is_no_network_and_no_path(kind, given, shown):
    with pytest.raises(UserError, match=rf"surrogate must be a Surrogate such as TrainedSurrogate\(\), got {shown}$"):
        kind(surrogate=given)


@pytest.mark.parametrize("kind", [*TRAINING, GumbelFlips])
def test_a_network_that_is_made_has_no_fresh_weights(kind):
    net = nn.Linear(4, 2)
    with pytest.raises(UserError, match=r"net must make a network when called .* got a network that is made already"):
        kind(net=net)
    with pytest.raises(UserError, match="net must make a network when called with num_classes=K, got 'MLP'"):
        kind(net="MLP")
    assert net.training
    assert net.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", TRAINING)
def test_a_recipe(kind):
    with pytest.raises(UserError, match=r"recipe must be a TrainingRecipe such as TrainingRecipe\(.*\), got 20"):
        kind(recipe=20)


@pytest.mark.parametrize("kind", [ColouringScore, InfluenceScore, TrajectoryMatching])
def test_an_attack(kind):
    with pytest.raises(UserError, match=r"attack must be an Attack such as .* got 'pgd'"):
        kind(attack="pgd")


@pytest.mark.parametrize(("space", "shown"), [("pca", "'pca'"), (InputSpace, "the class InputSpace")])
def test_a_space(space, shown):
    for make in (
        lambda: DominatingSet(space=space),
        lambda: ClassGraphIntersection(second_space=space),
        lambda: ColouringScore(space=space),
    ):
        with pytest.raises(UserError, match=rf"space must be a Space such as PCASpace\(\), got {shown}$"):
            make()


def test_classes_are_a_list():
    for given in (3, {0}, torch.tensor([[0]])):
        with pytest.raises(UserError, match=r"^classes must be a list such as \[0, 1\]"):
            RandomPoints(classes=given)
    for given, sentence in ((3, "must be a list"), ([], "must name at least one"), ([0, 0], "must differ")):
        with pytest.raises(UserError, match=f"^outer_classes {sentence}"):
            InfluenceScore(outer_classes=given)


@pytest.mark.parametrize("kind", [list, tuple, OmegaConf.create, np.array, lambda classes: range(*classes)])
def test_classes_in_any_sequence(kind):
    given = kind([0, 2])
    expected = [int(label) for label in given]
    for rule in (RandomPoints(classes=given), LabelNoise(classes=given), PlacedPoisons(1.0, classes=given)):
        assert rule.classes == expected
        assert type(rule.classes) is list
        assert json.dumps(arguments(rule)["classes"]) == json.dumps(expected)
    assert InfluenceScore(outer_classes=given).outer_classes == expected
    data = TrainingSet(torch.arange(60) % 3, 3)
    flips = LabelFlips(RandomPoints(count=5, classes=given)).craft(data, seed=0)
    assert flips.same_flips(LabelFlips(RandomPoints(count=5, classes=expected)).craft(data, seed=0))
    assert set(flips.old_label.tolist()) <= set(expected)


def test_means_and_nets_in_any_sequence():
    means = GivenMeans(OmegaConf.create([[0, 1], [1, 0.5]]))
    assert describe(means) == describe(GivenMeans([[0, 1], (1, 0.5)])) == "GivenMeans([[0, 1], [1, 0.5]])"
    assert MetaFlips(nets=(MLP,)).nets == [MLP]
    for wrong in ("01", 3, {0}):
        with pytest.raises(UserError, match=r"GivenMeans\.values must hold a list of numbers"):
            GivenMeans(wrong)
    with pytest.raises(UserError, match=r"nets must be a list of architectures such as \[MLP\], got 'MLP'"):
        MetaFlips(nets="MLP")


def test_what_label_flips_are_made_of():
    for select in ("x", Medoids, LabelFlips(Medoids())):
        with pytest.raises(UserError, match=r"select must be a Selector such as RandomPoints\(count=10\)"):
            LabelFlips(select)
    for relabel in ("next", NextClass):
        with pytest.raises(UserError, match=r"relabel must be a Relabelling such as NextClass\(\)"):
            LabelFlips(Medoids(), relabel)
    with pytest.raises(UserError, match=r"path must name a .csv file of flips, got 5"):
        FromFile(5)
    with pytest.raises(UserError, match="clip must be true or false, got 'a'"):
        PathLengthBucket(clip="a")


def test_single_numbers_are_vectors_of_one():
    data = [(torch.tensor(float(position)), position % 2) for position in range(20)]
    labels = torch.arange(20) % 2
    flat = [(row[None], label) for row, label in data]
    strategy = LabelFlips(Medoids(per_class=2))
    chosen = strategy.craft(TrainingSet(labels, 2, dataset=data), 0).index
    assert chosen.equal(strategy.craft(TrainingSet(labels, 2, dataset=flat), 0).index)


@pytest.mark.parametrize("kind", [TrajectoryMatching, InfluenceScore])
def test_attacks_inside_strategies_take_inputs_of_any_range(kind):
    """Influence on a network that undoes a shift and a scale is that on inputs in [0, 1]; both take such inputs."""
    from lightning_poison.attacks import PGD

    class Undoing(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, inputs):
            return self.net((inputs + 3) / 4)

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    inputs = torch.rand(60, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.5 * labels[:, None]
    inputs[0], inputs[1] = 0.0, 1.0
    inputs = (inputs * 1024).round() / 1024
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-8.0] * 4, [8.0] * 4]))
        net.bias.copy_(torch.tensor([16.0, -16.0]))
    near = kind(per_class=3, attack=PGD(eps=0.1, steps=5))

    def flips(values, network):
        return LabelFlips(near).craft(
            TrainingSet(labels, 2, dataset=list(zip(values.float(), labels.tolist(), strict=True)), network=network), 0
        )

    if kind is InfluenceScore:
        assert flips(4 * inputs - 3, Undoing(net)).index.equal(flips(inputs, net).index)
    else:  # its expert sees the inputs as they are
        assert len(flips(4 * inputs - 3, Undoing(net))) == 6


def test_a_kernel_that_is_not_finite_is_told_from_one_that_is_singular():
    targets, training = torch.eye(2)[[0, 1, 0]], torch.arange(3)
    with pytest.raises(UserError, match=r"the kernel of these inputs is not finite; scale the inputs to \[0, 1\]"):
        KernelFit(torch.full((3, 3), torch.inf), training, targets, 1.0)
    with pytest.raises(UserError, match=r"noise must be larger for this kernel, got 1e-30 .* try noise=1e-29"):
        KernelFit(torch.ones(3, 3), training, targets, 1e-30)
