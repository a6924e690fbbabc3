from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.poisons import TrainingSet
from lightning_poison.poisons.surrogates import check_surrogate, surrogate_network
from lightning_poison.poisons.surrogates.surrogate import check_output

LABELS = torch.arange(400) % 2


class Stored(nn.Module):
    """Says of each point what it is told to say: its input is its number."""

    def __init__(self, said: torch.Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(self.said[inputs[:, 0].long()], 2).float()


def data(count: int = 400) -> TrainingSet:
    labels = LABELS[:count]
    return TrainingSet(labels, 2, dataset=TensorDataset(torch.arange(count)[:, None].float(), labels))


def right(count: int, of: int = 400) -> Stored:
    return Stored(torch.where(torch.arange(of) < count, LABELS[:of], 1 - LABELS[:of]))


def test_three_standard_errors_above_chance():
    """Of 400 fair coins 200 fall right, with a standard deviation of 10: 230 and more are no chance."""
    with pytest.raises(UserError, match=r"surrogate gets 57.2% .* no more than guessing \(50.0%; it needs 57.5%\)"):
        check_surrogate(right(229), data())
    assert check_surrogate(right(230), data()) is not None


def test_few_points_ask_for_a_third_of_the_rest():
    assert check_surrogate(right(6, 8), data(8)) is not None
    with pytest.raises(UserError, match=r"62.5% .* it needs 66.7%"):
        check_surrogate(right(5, 8), data(8))
    assert check_surrogate(right(2, 2), data(2)) is not None


class Mapping(nn.Module):
    def forward(self, inputs):
        return {"logits": inputs}


class Unwritten(nn.Module):
    def forward(self, inputs):
        raise NotImplementedError


class TwoInputs(nn.Module):
    def forward(self, inputs, lengths):
        return inputs


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Mapping(),
            r"^the network Mapping cannot be used: the model must return a tensor .* \(output: 0, or a name\)$",
        ),
        (Unwritten(), r"^the network Unwritten cannot take inputs of shape \(1,\) \(NotImplementedError\); let its"),
        (
            TwoInputs(),
            r"^the network TwoInputs cannot be used: forward .* must take the inputs alone, got .*\(inputs, lengths\);",
        ),
        (nn.Linear(2, 2), r"^the network Linear cannot take .*; let its forward take .*, or name a surrogate$"),
    ],
)
def test_a_network_that_nobody_has_named_is_not_called_a_surrogate(network, message):
    with pytest.raises(UserError, match=message):
        surrogate_network(None, replace(data(), network=network), 0)
    with pytest.raises(UserError, match=r"^the surrogate "):
        check_surrogate(network, data())


def test_weights_that_the_training_will_make_are_waited_for():
    lazy = nn.LazyLinear(2)
    check_output(lazy, data().inputs[:2])
    assert lazy.has_uninitialized_params()
