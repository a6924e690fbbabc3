import pytest
import torch
from torch import nn

from lightning_poison.attacks.convolution import FastInputGradients


def gradients(layer, inputs, fast):
    inputs = inputs.clone().requires_grad_()
    if fast:
        with FastInputGradients():
            outputs = layer(inputs)
    else:
        outputs = layer(inputs)
    (found,) = torch.autograd.grad(outputs.sin().sum(), inputs)
    return found, outputs


@pytest.mark.parametrize("kernel", [(5, 5), (3, 2), (1, 1)])
@pytest.mark.parametrize("stride", [1, (2, 3)])
@pytest.mark.parametrize("padding", [0, (2, 1)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_library(kernel, stride, padding, dilation, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 6, kernel, stride, padding, dilation, bias=bias).double().requires_grad_(False)
    inputs = torch.rand(4, 1, 11, 12, dtype=torch.float64)
    fast, outputs = gradients(layer, inputs, fast=True)
    usual, expected = gradients(layer, inputs, fast=False)
    assert "_Convolution" in type(outputs.grad_fn).__name__
    assert outputs.equal(expected)
    torch.testing.assert_close(fast, usual, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 4, 3),  # its weights require gradients
        nn.Conv2d(1, 4, 3, padding="same").requires_grad_(False),
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect").requires_grad_(False),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)).requires_grad_(False)[1:],
    ],
)
def test_everything_else_is_left_alone_and_right(layer):
    channels = 4 if isinstance(layer, nn.Sequential) else 1
    inputs = torch.rand(2, channels, 7, 7)
    fast, outputs = gradients(layer, inputs, fast=True)
    usual, expected = gradients(layer, inputs, fast=False)
    assert outputs.equal(expected)
    torch.testing.assert_close(fast, usual)
