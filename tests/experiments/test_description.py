from __future__ import annotations

import importlib
import linecache
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_poison.attacks import PGD
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.experiments import VictimPlan
from lightning_poison.experiments.description import describe_net, digest, plain, tensor_digest
from lightning_poison.nets import MLP, StrideCNN
from lightning_poison.poisons import FromFile, LabelFlips, RandomPoints, ToClass
from lightning_poison.poisons.surrogates import TrainedSurrogate
from tests.experiments.experiment_runs import RECIPE, run

CODE = """
from functools import partial
from lightning_poison.experiments import VictimPlan
from lightning_poison.experiments.description import digest, plain
from lightning_poison.nets import StrideCNN
from lightning_poison.poisons import LabelFlips, RandomPoints, ToClass
from lightning_poison.poisons.surrogates import TrainedSurrogate
print(digest(plain([LabelFlips(RandomPoints(count=5), ToClass(1)), TrainedSurrogate(partial(StrideCNN, width=4))])))
"""


def test_a_digest_is_the_same_in_another_process() -> None:
    here = digest(plain([LabelFlips(RandomPoints(count=5), ToClass(1)), TrainedSurrogate(partial(StrideCNN, width=4))]))
    there = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there


def test_whatever_differs_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "flips.csv"
    things = [
        LabelFlips(RandomPoints(count=5)),
        LabelFlips(RandomPoints(count=6)),
        LabelFlips(RandomPoints(count=5), ToClass(1)),
        TrainedSurrogate(partial(StrideCNN, width=4)),
        TrainedSurrogate(partial(StrideCNN, width=5)),
        TrainedSurrogate(partial(MLP, width=4)),
        TrainedSurrogate(lambda num_classes: MLP(num_classes, image_size=8)),
        TrainedSurrogate(lambda num_classes: MLP(num_classes, image_size=9)),
        TrainingRecipe(epochs=3),
        TrainingRecipe(epochs=3, lr=0.5),
        PGD(eps=0.1),
        PGD(eps=0.1, losses=("margin",)),
        {"a": 1},
        {"a": 1.5},
        FromFile(str(path)),
    ]
    digests = [digest(plain(thing)) for thing in things]
    path.write_text("index,old_label,new_label\n1,0,1\n")
    digests.append(digest(plain(FromFile(str(path)))))
    path.write_text("index,old_label,new_label\n2,0,1\n")
    digests.append(digest(plain(FromFile(str(path)))))
    assert len(set(digests)) == len(digests)


def test_tensors_differ_by_value_type_shape_and_order() -> None:
    a, b = torch.arange(6), torch.arange(6).reshape(2, 3)
    digests = [tensor_digest(*each) for each in ([a], [b], [a.int()], [a + 1], [a, a], [a, b], [b, a], [a.flip(0)])]
    assert len(set(digests)) == len(digests)
    assert tensor_digest(b.T.contiguous().T) == tensor_digest(b)


class _Small(nn.Module):
    def __init__(self, num_classes: int, scale: float = 1.0, sign: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, num_classes)
        self.sign = sign
        with torch.no_grad():
            self.layer.weight.mul_(scale)

    def forward(self, inputs):
        return self.sign * self.layer(inputs)


def test_networks_are_told_apart_by_layers_weights_and_forward() -> None:
    sample = torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
    nets = [_Small, partial(_Small, scale=2.0), partial(_Small, sign=-1.0)]
    described = [digest(describe_net(net, 3, sample)) for net in nets]
    described.append(digest(describe_net(_Small, 4, sample)))
    assert len(set(described)) == 4
    before = torch.get_rng_state()
    assert digest(describe_net(lambda num_classes: _Small(num_classes), 3, sample)) == described[0]
    assert torch.equal(before, torch.get_rng_state())


class _Dropping(nn.Module):
    """Drops and hides what its text and its weights do not show."""

    def __init__(self, num_classes: int, p: float = 0.2, backward: float = 1.0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, num_classes)
        self.p, self.backward = p, backward

    def forward(self, inputs):
        hidden = self.first(inputs.flatten(1))
        hidden = self.backward * hidden + (1 - self.backward) * hidden.detach()  # only gradients know
        return self.last(functional.dropout(torch.relu(hidden), self.p, self.training))


def test_networks_that_differ_in_training_only_are_told_apart() -> None:
    sample = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mild, strong = ((lambda num_classes, p=p: _Dropping(num_classes, p)) for p in (0.2, 0.5))
    described = [describe_net(net, 3, sample) for net in (mild, strong)]
    assert [described[0][name] for name in ("layers", "sizes", "answer")] == [
        described[1][name] for name in ("layers", "sizes", "answer")
    ]
    assert digest(described[0]) != digest(described[1])
    assert digest(describe_net(mild, 3, sample)) == digest(described[0])


def _dropping(backward: float, num_classes: int) -> nn.Module:
    return _Dropping(num_classes, backward=backward)


@pytest.mark.parametrize(
    "make", [lambda scale: partial(_Dropping, backward=scale), lambda scale: partial(_dropping, scale)]
)
def test_arguments_that_no_answer_shows_are_told_apart(make) -> None:
    sample = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nets = [make(scale) for scale in (1.0, 0.5, 1.0)]
    one, other, same = (digest(describe_net(net, 3, sample)) for net in nets)
    assert one == same != other


def test_another_argument_in_the_same_folder_is_trained_anew(tmp_path: Path, trained: list[int]) -> None:
    def dropped(p: float) -> list[str]:
        return run(tmp_path, victims={"net": VictimPlan(partial(_Dropping, p=p), RECIPE)}, seeds=1)

    mild = dropped(0.2)
    assert sum(trained) == 2
    strong = dropped(0.5)
    assert sum(trained) == 4
    assert mild[0] != strong[0]
    assert dropped(0.2) == mild
    assert dropped(0.5) == strong
    assert sum(trained) == 4


def test_an_edited_strategy_of_ones_own_is_another_one(tmp_path: Path, monkeypatch) -> None:
    text = "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Mine:\n    key = {}\n"
    described = []
    for name, number in (("one", 1), ("two", 2), ("three", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "strategy_of_mine.py").write_text(text.format(number))
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / name))
            patch.delitem(sys.modules, "strategy_of_mine", raising=False)
            linecache.clearcache()
            described.append(digest(plain(importlib.import_module("strategy_of_mine").Mine())))
            sys.modules.pop("strategy_of_mine")
    assert described[0] != described[1] == described[2]
