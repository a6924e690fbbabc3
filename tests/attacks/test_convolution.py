import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_library(kernel, stride, padding, dilation, bias, channels):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 6, kernel, stride, padding, dilation, bias=bias).double().requires_grad_(False)
    inputs = torch.rand(4, channels, 11, 12, dtype=torch.float64)
    fast, outputs = gradients(layer, inputs, fast=True)
    usual, expected = gradients(layer, inputs, fast=False)
    assert "_Convolution" in type(outputs.grad_fn).__name__
    assert outputs.equal(expected)
    torch.testing.assert_close(fast, usual, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding", "kernel", "fast"), [(2, 2, 5, True), (2, 1, 3, False), (1, 2, 5, False)])
def test_strided_convolutions_of_more_channels(stride, padding, kernel, fast):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 6, kernel, stride, padding).double().requires_grad_(False)
    inputs = torch.rand(4, 8, 14, 14, dtype=torch.float64)
    found, outputs = gradients(layer, inputs, fast=True)
    usual, expected = gradients(layer, inputs, fast=False)
    assert ("_Convolution" in type(outputs.grad_fn).__name__) == fast
    assert outputs.equal(expected)
    torch.testing.assert_close(found, usual, rtol=1e-12, atol=1e-12)


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


def test_weights_and_biases_that_want_a_gradient_get_it():
    for frozen in ([], ["weight"], ["bias"]):
        layer = nn.Conv2d(1, 4, 3)
        for name in frozen:
            getattr(layer, name).requires_grad_(False)
        inputs = torch.rand(2, 1, 7, 7, requires_grad=True)
        with FastInputGradients():
            layer(inputs).square().sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters() if parameter.requires_grad)


def test_kernels_of_any_memory_layout():
    weight = torch.rand(4, 1, 3, 2, dtype=torch.float64).transpose(2, 3)
    inputs = torch.rand(3, 1, 7, 6, dtype=torch.float64)
    fast, _ = gradients(lambda images: nn.functional.conv2d(images, weight), inputs, fast=True)
    usual, _ = gradients(lambda images: nn.functional.conv2d(images, weight), inputs, fast=False)
    torch.testing.assert_close(fast, usual, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_gradients(stride):
    weight = torch.rand(4, 1, 3, 3, dtype=torch.float64)

    def second(images):
        outputs = nn.functional.conv2d(images, weight, None, stride, 1)
        (first,) = torch.autograd.grad(outputs.pow(3).sum(), images, create_graph=True)
        return first

    inputs = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    fast, _ = gradients(second, inputs, fast=True)
    usual, _ = gradients(second, inputs, fast=False)
    torch.testing.assert_close(fast, usual, rtol=1e-10, atol=1e-10)


def test_a_network_that_differentiates_itself_with_functional_transforms():
    layer = nn.Conv2d(1, 4, 3, 2, 1).double().requires_grad_(False)

    def steepness(images):
        return torch.func.vmap(torch.func.grad(lambda image: layer(image[None]).square().sum()))(images)

    inputs = torch.rand(3, 1, 6, 7, dtype=torch.float64)
    fast, _ = gradients(steepness, inputs, fast=True)
    usual, _ = gradients(steepness, inputs, fast=False)
    torch.testing.assert_close(fast, usual, rtol=1e-10, atol=1e-10)


def test_no_image_at_all():
    layer = nn.Conv2d(3, 4, 3).requires_grad_(False)
    fast, _ = gradients(layer, torch.rand(0, 3, 6, 7), fast=True)
    assert fast.shape == (0, 3, 6, 7)


@pytest.mark.parametrize("change", [lambda w: w.mul_(3), lambda w: w.data.mul_(3), lambda w: w.numpy().fill(0.5)])
def test_weights_that_change_in_between(change):
    weight = torch.rand(4, 1, 3, 3, dtype=torch.float64)
    inputs = torch.rand(2, 1, 6, 6, dtype=torch.float64)

    def twice(images):
        nn.functional.conv2d(images, weight)
        change(weight)
        return nn.functional.conv2d(images, weight)

    start = weight.clone()
    fast, _ = gradients(twice, inputs, fast=True)
    weight.copy_(start)
    usual, _ = gradients(twice, inputs, fast=False)
    torch.testing.assert_close(fast, usual, rtol=1e-12, atol=1e-12)


def test_a_network_that_computes_its_first_layer_twice_to_save_memory():
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3)).double().requires_grad_(False)
    inputs = torch.rand(2, 1, 7, 7, dtype=torch.float64)
    fast, _ = gradients(lambda images: checkpoint(layers, images, use_reentrant=False), inputs, fast=True)
    usual, _ = gradients(layers, inputs, fast=False)
    torch.testing.assert_close(fast, usual, rtol=1e-10, atol=1e-10)


def test_an_ensemble_whose_weights_are_stacked():
    weights = torch.rand(3, 4, 1, 3, 3, dtype=torch.float64)
    inputs = torch.rand(2, 1, 7, 7, dtype=torch.float64)

    def ensemble(images):
        return torch.func.vmap(lambda weight: torch.conv2d(images, weight))(weights)

    fast, _ = gradients(ensemble, inputs, fast=True)
    usual, _ = gradients(ensemble, inputs, fast=False)
    torch.testing.assert_close(fast, usual, rtol=1e-10, atol=1e-10)
