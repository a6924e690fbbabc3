from typing import NamedTuple

import pytest
import torch
from torch import nn

from lightning_poison.attacks import PGD
from lightning_poison.attacks.outputs import SelectOutput, selected_output
from lightning_poison.errors import UserError


class Named(NamedTuple):
    features: torch.Tensor
    logits: torch.Tensor


class Wrapped(nn.Module):
    def __init__(self, net, form):
        super().__init__()
        self.net, self.form = net, form

    def forward(self, inputs):
        return self.form(inputs, self.net(inputs))


@pytest.mark.parametrize(
    ("form", "item"),
    [
        (lambda x, y: (x, y), 1),
        (lambda x, y: [y, x], -2),
        (lambda x, y: {"features": x, "logits": y}, "logits"),
        (lambda x, y: Named(x, y), "logits"),
        (lambda x, y: Named(x, y), 1),
    ],
)
def test_the_attack_sees_the_logits_and_leaves_the_model_alone(form, item, network, trained, digits, unchanged):
    inputs, labels = digits[0][1200:1230], digits[1][1200:1230]
    attack = PGD(0.1, steps=3)
    expected = attack(trained, inputs, labels)
    assert attack(SelectOutput(Wrapped(trained, form), item), inputs, labels).fooled.equal(expected.fooled)
    unchanged(network, lambda: attack(SelectOutput(Wrapped(network, form), item), inputs, labels))


def test_no_item_no_wrapper(network):
    assert selected_output(network, None) is network
    assert selected_output(network, 0).item == 0


@pytest.mark.parametrize(
    ("form", "item", "message"),
    [
        (lambda x, y: (x, y), 2, r"got 2 for a tuple of 2; use a position from 0 to 1"),
        (lambda x, y: (x, y), "logits", r"got 'logits' for a tuple of 2; use a position"),
        (lambda x, y: {"a": x, "b": y}, "logits", r"got 'logits' for a mapping with 'a', 'b'; use one of its names"),
        (lambda x, y: {"a": x, "b": y}, 0, r"got 0 for a mapping with 'a', 'b'; use one of its names"),
        (lambda x, y: y, 0, r"got 0 for a tensor; leave output out"),
        (lambda x, y: y, "shape", r"got 'shape' for a tensor; leave output out"),
    ],
)
def test_items_that_are_not_there(form, item, message, trained, digits):
    with pytest.raises(UserError, match=message):
        SelectOutput(Wrapped(trained, form), item)(digits[0][:2])


def test_a_model_that_returns_a_tuple_is_told_of_it(trained, digits):
    with pytest.raises(UserError, match="say where they stand in what it returns"):
        PGD()(Wrapped(trained, lambda x, y: (y, x)), digits[0][:2], digits[1][:2])


def test_gradients_flow_through_the_selection(trained, digits):
    points = digits[0][:2].clone().requires_grad_()
    SelectOutput(Wrapped(trained, lambda x, y: {"y": y}), "y")(points).sum().backward()
    assert torch.count_nonzero(points.grad)
