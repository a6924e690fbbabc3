"""A faster input gradient for the first convolution of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["FastInputGradients"]

_MOST_CHANNELS = 4  # of an image; with more the library's kernels are fast
_MOST_KERNELS = 8  # that are kept: a network has one first convolution, rarely more


class FastInputGradients(TorchFunctionMode):
    """Inside, convolutions of images of at most four channels on a CPU pass gradients to the image faster.

    Attacks need the gradient with respect to the image and none with respect to weights. It is a transposed
    convolution with one to four output channels, for which the library's kernels are slow. With the pixels of a block
    (4x4 of one channel, 2x2 of several) taken as channels it becomes an ordinary convolution with a larger kernel,
    which those kernels are made for: four to seven times as fast with one channel, about twice with three. The result
    is the same up to rounding. Every other operation is left alone.

    Example:
        >>> image, weight = torch.rand(2, 1, 5, 5, requires_grad=True), torch.rand(4, 1, 3, 3)
        >>> with FastInputGradients():
        ...     (fast,) = torch.autograd.grad(torch.conv2d(image, weight).square().sum(), image)
        >>> (usual,) = torch.autograd.grad(torch.conv2d(image, weight).square().sum(), image)
        >>> torch.allclose(fast, usual, rtol=1e-4)
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._kernels: dict[tuple[Any, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Reroute the convolutions that it is for."""
        if func is torch.conv2d and not kwargs and _is_for_us(*args):
            inputs, weight, bias, axes = _arguments(*args)
            return _Convolution.apply(inputs, weight, bias, self._block_kernel(weight, axes), *axes)
        return func(*args, **(kwargs or {}))

    def _block_kernel(self, weight: Tensor, axes: tuple[_Axis, _Axis]) -> Tensor:
        """The kernel from outputs to blocks of pixels, shape (channels * pixels of a block, outputs, *spans)."""
        key = (id(weight), weight.dtype, axes)
        known = self._kernels.get(key)
        # Values are compared, as not every change (of ``weight.data``) can be told from the version.
        if known is not None and known[1].equal(weight):
            return known[2]
        if len(self._kernels) >= _MOST_KERNELS:
            self._kernels.clear()
        down, right = (axis.routes().to(weight) for axis in axes)
        with torch.no_grad():
            kernel = torch.einsum("utr,vwq,ocrq->cuvotw", down, right, weight).flatten(0, 2)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        # Kept together with the weight, so that no other one can get its id.
        self._kernels[key] = weight, weight.detach().clone(), kernel
        return kernel


class _Axis(NamedTuple):
    """A convolution along an axis: pixel y feeds output o through weight r if ``y + padding = stride o + gap r``."""

    size: int
    weights: int
    stride: int
    padding: int
    gap: int
    least_block: int

    @property
    def block(self) -> int:
        """How many pixels are a block: a multiple of the stride."""
        return self.stride * -(-self.least_block // self.stride)

    @property
    def first(self) -> int:
        """The first output that the block at the origin feeds, not positive."""
        return -(((self.weights - 1) * self.gap - self.padding) // self.stride)

    @property
    def span(self) -> int:
        """How many outputs a block feeds."""
        return (self.block - 1 + self.padding) // self.stride - self.first + 1

    def routes(self) -> Tensor:
        """1 where a block's pixel u feeds its output t through weight r, shape (block, span, weights)."""
        pixel = torch.arange(self.block)[:, None, None]
        output = torch.arange(self.first, self.first + self.span)[:, None]
        return (pixel + self.padding == self.stride * output + self.gap * torch.arange(self.weights)).double()


def _is_for_us(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> bool:
    padding = rest[1] if len(rest) > 1 else 0
    return (
        torch.is_grad_enabled()
        and inputs.requires_grad
        and inputs.ndim == weight.ndim == 4
        and inputs.shape[1] == weight.shape[1] <= _MOST_CHANNELS  # so in one group
        and inputs.device.type == "cpu"
        and inputs.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and not isinstance(padding, str)
        and not torch._C._functorch.is_functorch_wrapped_tensor(weight)  # whose values can't be compared
    )


def _arguments(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, tuple[_Axis, _Axis]]:
    del groups
    sizes, weights, least_block = inputs.shape[2:], weight.shape[2:], 4 if inputs.shape[1] == 1 else 2
    steps, margins, gaps = _pair(stride), _pair(padding), _pair(dilation)
    down, right = (
        _Axis(sizes[axis], weights[axis], steps[axis], margins[axis], gaps[axis], least_block) for axis in (0, 1)
    )
    return inputs, weight, bias, (down, right)


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
    return int(pair[0]), int(pair[1])


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        inputs: Tensor, weight: Tensor, bias: Tensor | None, block_kernel: Tensor, down: _Axis, right: _Axis
    ) -> Tensor:
        del block_kernel
        stride, padding, gap = ((getattr(down, name), getattr(right, name)) for name in ("stride", "padding", "gap"))
        return torch.conv2d(inputs, weight, bias, stride, padding, gap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004  # torch's
        # Saved is what the library's convolution saves, so that checkpointing may compute either a second time.
        ctx.save_for_backward(*inputs[:2])
        ctx.block_kernel, ctx.axes = inputs[3], inputs[4:]

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        block_kernel, (down, right) = ctx.block_kernel, (_Axis(*axis) for axis in ctx.axes)
        channels = len(block_kernel) // (down.block * right.block)
        margins = [*_margins(right, gradients.shape[3]), *_margins(down, gradients.shape[2])]
        # A margin that is equal on all sides costs nothing.
        even = margins[0] if len(set(margins)) == 1 and margins[0] >= 0 else 0
        padded = gradients if even else functional.pad(gradients, margins)
        strides = [axis.block // axis.stride for axis in (down, right)]
        blocks = torch.conv2d(padded, block_kernel, stride=strides, padding=even)
        count, _, rows, columns = blocks.shape
        pixels = blocks.view(count, channels, down.block, right.block, rows, columns).permute(0, 1, 4, 2, 5, 3)
        image = pixels.reshape(count, channels, rows * down.block, columns * right.block)
        return image[:, :, : down.size, : right.size], None, None, None, None, None


def _margins(axis: _Axis, outputs: int) -> tuple[int, int]:
    """How many zeros the blocks' convolution needs before and behind the outputs; fewer than none cuts some off."""
    blocks = -(-axis.size // axis.block)
    last = (blocks - 1) * (axis.block // axis.stride) + axis.first + axis.span - 1
    return -axis.first, last - (outputs - 1)
