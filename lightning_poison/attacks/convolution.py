"""A faster input gradient for the first convolution of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["FastInputGradients"]

_IMAGE_CHANNELS = 4  # at most; with more the library's kernels are fast,
_STRIDED_CHANNELS = 8  # unless there is a stride
_MOST_KERNELS = 8  # that are kept: a network has one first convolution, rarely more


class FastInputGradients(TorchFunctionMode):
    """Inside, convolutions of few channels on a CPU pass gradients to their inputs faster.

    Attacks need the gradient with respect to the image and none with respect to weights. It is a transposed
    convolution with one to four output channels, for which the library's kernels are slow. With the pixels of a block
    (4x4 of one channel, 2x2 of several) taken as channels it becomes an ordinary convolution with a larger kernel,
    which those kernels are made for: four to seven times as fast with one channel, about twice with three. The same
    holds for strided convolutions of up to eight channels, in blocks of the stride, where no padding has to be copied.
    The result is the same up to rounding. Every other operation is left alone.

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
            if _pays(weight.shape[1], axes):
                return _Convolution.apply(inputs, weight, bias, self._block_kernel(weight, axes), *axes)
        return func(*args, **(kwargs or {}))

    def _block_kernel(self, weight: Tensor, axes: tuple[_Axis, _Axis]) -> Tensor:
        """The kernel from outputs to blocks of pixels, shape (pixels of a block * channels, outputs, *spans)."""
        key = (id(weight), weight.dtype, axes)
        known = self._kernels.get(key)
        # Values are compared, as not every change (of ``weight.data``) can be told from the version.
        if known is not None and known[1].equal(weight):
            return known[2]
        if len(self._kernels) >= _MOST_KERNELS:
            self._kernels.clear()
        down, right = (axis.routes().to(weight) for axis in axes)
        with torch.no_grad():
            kernel = torch.einsum("utr,vwq,ocrq->uvcotw", down, right, weight).flatten(0, 2)
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

    @property
    def margins(self) -> tuple[int, int]:
        """How many zeros the blocks' convolution needs before and behind the outputs; fewer than none cuts some off."""
        outputs = (self.size + 2 * self.padding - self.gap * (self.weights - 1) - 1) // self.stride + 1
        blocks = -(-self.size // self.block)
        last = (blocks - 1) * (self.block // self.stride) + self.first + self.span - 1
        return -self.first, last - (outputs - 1)

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
        and inputs.shape[1] == weight.shape[1] <= _STRIDED_CHANNELS  # so in one group
        and inputs.device.type == "cpu"
        and inputs.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and not isinstance(padding, str)
        and not _is_transformed(inputs)
        and not _is_transformed(weight)
    )


def _pays(channels: int, axes: tuple[_Axis, _Axis]) -> bool:
    return channels <= _IMAGE_CHANNELS or (min(axis.stride for axis in axes) > 1 and _even_margin(axes) > 0)


def _even_margin(axes: tuple[_Axis, _Axis]) -> int:
    """The margin where it is the same on all sides and so costs nothing, else 0."""
    margins = {margin for axis in axes for margin in axis.margins}
    return max(0, margins.pop()) if len(margins) == 1 else 0


def _is_transformed(values: Tensor) -> bool:
    """Whether ``torch.func`` has wrapped it: such values can't be compared."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(values))


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
    channels, sizes, weights = inputs.shape[1], inputs.shape[2:], weight.shape[2:]
    least_block = 4 if channels == 1 else 2 if channels <= _IMAGE_CHANNELS else 1
    steps, margins, gaps = _pair(stride), _pair(padding), _pair(dilation)
    down, right = (
        _Axis(sizes[axis], weights[axis], steps[axis], margins[axis], gaps[axis], least_block) for axis in (0, 1)
    )
    return inputs, weight, bias, (down, right)


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
    return int(pair[0]), int(pair[1])


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        block_kernel: Tensor,
        down: _Axis,
        right: _Axis,
    ) -> Tensor:
        # Saved is what the library's convolution saves, so that checkpointing may compute either a second time.
        ctx.save_for_backward(inputs, weight)
        ctx.block_kernel, ctx.axes = block_kernel, (down, right)
        stride, padding, gap = (down.stride, right.stride), (down.padding, right.padding), (down.gap, right.gap)
        return torch.conv2d(inputs, weight, bias, stride, padding, gap)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        block_kernel, (down, right) = ctx.block_kernel, ctx.axes
        channels = len(block_kernel) // (down.block * right.block)
        even = _even_margin((down, right))
        padded = gradients if even else functional.pad(gradients, [*right.margins, *down.margins])
        strides = [axis.block // axis.stride for axis in (down, right)]
        blocks = torch.conv2d(padded, block_kernel, stride=strides, padding=even).permute(0, 2, 3, 1)
        count, rows, columns, _ = blocks.shape
        pixels = blocks.reshape(count, rows, columns, down.block, right.block, channels).permute(0, 1, 3, 2, 4, 5)
        image = pixels.reshape(count, rows * down.block, columns * right.block, channels).permute(0, 3, 1, 2)
        return image[:, :, : down.size, : right.size], None, None, None, None, None
