"""A faster input gradient for convolutions of one-channel images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["FastInputGradients"]


class FastInputGradients(TorchFunctionMode):
    """Inside, convolutions of one-channel images on a CPU pass gradients to the image several times as fast.

    Attacks need the gradient with respect to the image and none with respect to weights. For one input channel the
    library's kernel spends most of an attack there; one matrix product and a shifted addition for each weight of
    the kernel do the same, up to rounding. Every other operation is left alone.

    Example:
        >>> image, weight = torch.rand(2, 1, 5, 5, requires_grad=True), torch.rand(4, 1, 3, 3)
        >>> with FastInputGradients():
        ...     (fast,) = torch.autograd.grad(torch.conv2d(image, weight).square().sum(), image)
        >>> (usual,) = torch.autograd.grad(torch.conv2d(image, weight).square().sum(), image)
        >>> torch.allclose(fast, usual, rtol=1e-4)
        True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Reroute the convolutions that it is for."""
        if func is torch.conv2d and not kwargs and _is_for_us(*args):
            return _Convolution.apply(*args[:2], *_rest(*args[2:]))
        return func(*args, **(kwargs or {}))


def _is_for_us(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> bool:
    padding = rest[1] if len(rest) > 1 else 0
    return (
        torch.is_grad_enabled()
        and inputs.requires_grad
        and inputs.ndim == 4
        and inputs.shape[1] == weight.shape[1] == 1
        and inputs.device.type == "cpu"
        and inputs.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and not isinstance(padding, str)
    )


def _rest(
    bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Any, ...]:
    del groups  # one input channel has one group
    return bias, _pair(stride), _pair(padding), _pair(dilation)


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
    return int(pair[0]), int(pair[1])


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        return torch.conv2d(inputs, weight, bias, stride, padding, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004  # torch's
        images, weight, _, *settings = inputs
        ctx.save_for_backward(weight)
        ctx.settings = images.shape, *settings

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        (count, _, height, width), (down, right), (top, left), (row_gap, column_gap) = ctx.settings
        outputs, _, rows, columns = weight.shape
        out_height, out_width = gradients.shape[2:]
        # (kernel positions, outputs) @ (outputs, every pixel): what each pixel of the output sends to each neighbour
        pixels = gradients.permute(0, 2, 3, 1).reshape(-1, outputs)
        sent = (weight.reshape(outputs, rows * columns).T @ pixels.T).view(rows, columns, count, out_height, out_width)
        padded = gradients.new_zeros(count, height + 2 * top, width + 2 * left)
        for row in range(rows):
            for column in range(columns):
                y, x = row * row_gap, column * column_gap
                ends = y + (out_height - 1) * down + 1, x + (out_width - 1) * right + 1
                padded[:, y : ends[0] : down, x : ends[1] : right] += sent[row, column]
        image = padded[:, top : top + height, left : left + width]
        return image[:, None], None, None, None, None, None
