from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lightning_poison.attacks import PGD
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.experiments.description import describe_net, digest, plain, tensor_digest
from lightning_poison.nets import MLP, StrideCNN
from lightning_poison.poisons import FromFile, LabelFlips, RandomPoints, ToClass
from lightning_poison.poisons.surrogates import TrainedSurrogate

CODE = """
from functools import partial
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
