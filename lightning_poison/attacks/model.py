"""The network as an attack sees it: in eval mode, with frozen weights, giving class scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_labels

__all__ = ["check_samples", "class_scores", "frozen_eval"]


@contextmanager
def frozen_eval(model: Callable[..., Any]) -> Iterator[None]:
    """Gradients with respect to inputs, and none to weights, also within ``torch.inference_mode``.

    Inside, ``model`` is in eval mode and its parameters require no gradient; outside, every module's mode and every
    parameter's flag is as before, also after an exception. Tensors made in inference mode must be cloned inside
    before a gradient can flow through them.

    Args:
        model: an ``nn.Module``; of any other callable only the gradient mode is set.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with frozen_eval(net):
        ...     net.training, net[0].weight.requires_grad
        (False, False)
        >>> net.training, net[0].weight.requires_grad
        (True, True)
    """
    module = model if isinstance(model, nn.Module) else nn.Module()
    modes = [(part, part.training) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            module.eval()
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        with torch.inference_mode(False):
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


def class_scores(model: Callable[[Tensor], Any], inputs: Tensor) -> Tensor:
    """Run ``model`` and check that it returns class scores (logits).

    Args:
        model: maps (N, ...) to (N, K).
        inputs: shape (N, ...).

    Returns:
        shape (N, K), float, finite, K >= 2.

    Raises:
        UserError: the output is something else.
    """
    scores = model(inputs)
    if not isinstance(scores, Tensor):
        raise UserError(
            f"the model must return a tensor of class scores, got {type(scores).__name__}; "
            "let its forward return the logits alone"
        )
    if scores.ndim != 2 or len(scores) != len(inputs) or scores.shape[1] < 2 or not scores.is_floating_point():
        raise UserError(
            f"class scores must be floats of shape ({len(inputs)}, number of classes >= 2), "
            f"got shape {tuple(scores.shape)}, dtype {scores.dtype}; let the model's forward return one logit a class"
        )
    return check_finite("class scores", scores, remedy="look for a diverged training (lower the learning rate)")


def check_samples(inputs: Tensor, labels: Tensor, targets: Tensor | None) -> None:
    """Refuse samples that no attack can be run on; class ranges are checked once the number of classes is known.

    Args:
        inputs: shape (N, ...), float, in [0, 1].
        labels: shape (N,), integer.
        targets: shape (N,), integer, or None.

    Raises:
        UserError: pixels outside [0, 1], NaN, another dtype, lengths that differ.
    """
    if not inputs.is_floating_point() or inputs.ndim < 2:
        raise UserError(
            f"inputs must be a batch of floats in [0, 1], got shape {tuple(inputs.shape)}, dtype {inputs.dtype}; "
            "divide 8-bit images by 255"
        )
    check_finite("inputs", inputs, remedy="remove the broken samples")
    if inputs.numel() and (inputs.min() < 0 or inputs.max() > 1):
        raise UserError(
            f"inputs must lie in [0, 1], got [{inputs.min():.4g}, {inputs.max():.4g}]; "
            "take the normalisation out of the data and make it the model's first layer"
        )
    for name, values in (("labels", labels), ("targets", targets)):
        if values is not None and len(check_labels(name, values, torch.iinfo(torch.int64).max)) != len(inputs):
            raise UserError(f"{name} must have one entry for each of {len(inputs)} inputs, got {len(values)}")
