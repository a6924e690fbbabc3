from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.poisons import LabelFlips, MetaFlips, NewClass, NextClass, RandomOther, ToClass, TrainingSet
from tests.poisons.golden import check_golden, golden_data

SMALL = {"nets": [partial(MLP, in_channels=1, image_size=8, hidden=(16,))], "outer": 40}


def vectors(count: int = 120, seed: int = 0) -> TrainingSet:
    """Three Gaussian classes in five dimensions, outside [0, 1]."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    inputs = 3 * torch.eye(3, 5)[labels] + torch.randn(count, 5, generator=stream)
    return TrainingSet(labels, 3, dataset=TensorDataset(inputs, labels))


def test_the_same_flips_whatever_the_global_state():
    data = golden_data(200)
    poison = LabelFlips(MetaFlips(per_class=1, **SMALL))
    first = poison.craft(data, seed=0)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert poison.craft(golden_data(200), seed=0).same_flips(first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not poison.craft(data, seed=1).same_flips(first)
    assert first.old_label.bincount(minlength=10).tolist() == [1] * 10


BUDGETS = [({"per_class": 2}, 6), ({"count": 5}, 5), ({"fraction": 0.1}, 12), ({"per_class": 2, "classes": [1]}, 2)]


@pytest.mark.parametrize("relabel", [NextClass(), NewClass(), ToClass(0), RandomOther()])
@pytest.mark.parametrize(("budget", "flips"), BUDGETS)
@pytest.mark.parametrize("objective", ["coverage", "joint"])
def test_any_relabelling_and_budget_on_vectors(relabel, budget, flips, objective):
    found = LabelFlips(MetaFlips(**budget, objective=objective, outer=30, eps=0.5), relabel).craft(vectors(), seed=0)
    if isinstance(relabel, ToClass):  # two of three classes are left
        flips = {6: 4, 12: 8}.get(flips, flips)
    assert len(set(found.index.tolist())) == len(found) == flips
    assert (found.new_label != found.old_label).all()


def test_closeness_and_surrogates_each_have_a_say():
    data = golden_data(200)
    found = [
        set(LabelFlips(MetaFlips(count=8, closeness=closeness, **SMALL)).craft(data, seed=0).index.tolist())
        for closeness in (0.0, 0.5, 1e6)
    ]
    assert found[0] != found[1] != found[2]
    other = MetaFlips(count=8, closeness=1e6, nets=SMALL["nets"], outer=40, copies=2)
    assert set(LabelFlips(other).craft(data, seed=0).index.tolist()) == found[2]


def test_attacking_anew_changes_the_choice_but_not_its_start():
    data = golden_data(200)

    def flips(**arguments):
        return LabelFlips(MetaFlips(objective="joint", **arguments, **SMALL)).craft(data, seed=0)

    start = flips(count=1)
    once, often = flips(count=20), flips(count=20, attack_every=1)
    assert flips(count=1, attack_every=1).same_flips(start)
    assert set(start.index.tolist()) <= set(once.index.tolist()) & set(often.index.tolist())
    assert not once.same_flips(often)


def test_a_share_that_is_flipped_as_a_whole():
    data = vectors(30)
    assert len(LabelFlips(MetaFlips(per_class=10)).craft(data, seed=0)) == 30
    assert len(LabelFlips(MetaFlips(per_class=0)).craft(data, seed=0)) == 0
    assert len(LabelFlips(MetaFlips(per_class=9, eps=0.5)).craft(data, seed=0)) == 27


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"per_class": 41}, "got 41 and class 0 has 40 points"),
        ({"nets": []}, "nets must be a list of architectures such as .MLP., got \\[\\]"),
        ({"nets": nn.Linear}, "nets must be a list of architectures such as .MLP., got the class Linear"),
        ({"nets": [nn.Linear(4, 2)]}, "each of nets must make a network when called .* a network that is made already"),
        ({"noise": 0.0}, "noise must lie in"),
        ({"objective": "mean"}, "objective must be one of coverage, joint"),
        ({"closeness": -1.0}, "closeness must lie in"),
        ({"outer": 0}, "outer must be an integer of at least 1"),
        ({"attack_every": 0}, "attack_every must be"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        LabelFlips(MetaFlips(**arguments)).craft(vectors(), seed=0)


def test_a_network_that_does_not_fit_the_data():
    with pytest.raises(UserError, match=r"cannot take inputs of shape \(5,\)"):
        LabelFlips(MetaFlips(per_class=1, **SMALL)).craft(vectors(), seed=0)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_network_without_forward_derivatives_is_named(norm):
    def normed(num_classes):
        return nn.Sequential(norm(nn.Linear(5, 8)), nn.ReLU(), nn.Linear(8, num_classes))

    with pytest.raises(UserError, match="surrogate Sequential has an operation without a forward derivative") as raised:
        LabelFlips(MetaFlips(per_class=1, nets=[normed], outer=30, eps=0.5)).craft(vectors(), seed=0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("objective", ["coverage", "joint"])
def test_golden(objective):
    check_golden(f"MetaFlips_{objective}", LabelFlips(MetaFlips(per_class=2, objective=objective)), golden_data(300))
