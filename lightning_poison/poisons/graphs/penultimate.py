"""What the last layer of a network sees."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_poison.attacks import class_scores
from lightning_poison.errors import UserError
from lightning_poison.nets.running import in_parts

__all__ = ["penultimate_features"]


def penultimate_features(network: nn.Module, inputs: Tensor) -> Tensor:
    """The inputs of the linear layer that gives the class scores.

    Args:
        network: maps (N, ...) to logits (N, K) by a linear layer at its end.
        inputs: shape (n, ...), float.

    Returns:
        shape (n, d), float, on the CPU, computed in parts on the network's device.

    Raises:
        UserError: the linear layer that runs last does not give one number a class. What is done to its numbers
            afterwards, such as a softmax, does not matter.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 3))
        >>> penultimate_features(network, torch.tensor([[[-1.0, 2.0]]]))
        tensor([[0., 2.]])
    """
    caught: list[tuple[Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, given, made: caught.append((given[0], made)))
        for layer in network.modules()
        if isinstance(layer, nn.Linear)
    ]

    def seen(part: Tensor) -> Tensor:
        caught.clear()
        scores = class_scores(network, part)
        if not caught or caught[-1][1].shape != scores.shape:
            raise UserError(
                f"the network must end in a linear layer, got {type(network).__name__}, which does not; "
                "use InputSpace or PCASpace"
            )
        return caught[-1][0].flatten(1)

    try:
        return in_parts(network, inputs, seen)
    finally:
        for hook in hooks:
            hook.remove()
