"""Every selector on class graphs by its name, with nested arguments, as the command line reads them."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from lightning_poison.attacks import PGD
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.nets import MLP
from lightning_poison.poisons import (
    ClassGraphDegree,
    ClassGraphIntersection,
    ColouringScore,
    DominatingSet,
    FeatureSpace,
    LabelFlips,
    PCASpace,
    Poison,
)
from lightning_poison.poisons.surrogates import TrainedSurrogate


def read(*arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--poison", type=LabelFlips | Poison | None)
    given = parser.parse_args(["--poison=LabelFlips", *(f"--poison.select{argument}" for argument in arguments)])
    return parser.instantiate_classes(given).poison.select


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["=ClassGraphDegree", ".p=inf", ".gamma=0.6"], ClassGraphDegree(p="inf", gamma=0.6)),
        (["=ClassGraphDegree", ".p=1", ".count=5"], ClassGraphDegree(p=1.0, count=5)),
        (
            ["=DominatingSet", ".space=PCASpace", ".space.dim=8", ".quantile=0.1", ".classes=[1,2]"],
            DominatingSet(space=PCASpace(8), quantile=0.1, classes=[1, 2]),
        ),
        (
            [
                "=ClassGraphIntersection",
                ".propose=dominating_set",
                ".second_space=FeatureSpace",
                ".second_space.surrogate=TrainedSurrogate",
                ".second_space.surrogate.copy=1",
            ],
            ClassGraphIntersection(propose="dominating_set", second_space=FeatureSpace(TrainedSurrogate(copy=1))),
        ),
        (
            ["=ColouringScore", ".attack=PGD", ".attack.eps=51/255", ".recipe.epochs=30", ".fraction=0.1"],
            ColouringScore(attack=PGD(eps=0.2), recipe=TrainingRecipe(epochs=30), fraction=0.1),
        ),
    ],
)
def test_arguments_arrive(arguments, expected):
    assert read(*arguments) == expected


def test_the_network_of_the_colours_can_be_named():
    net = read("=ColouringScore", ".net=MLP", ".net.image_size=8").net
    assert isinstance(net(num_classes=7), MLP)
