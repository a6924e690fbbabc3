"""The weights of several networks as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

__all__ = ["StackedWeights"]


class StackedWeights:
    """Networks of one architecture as one function of stacked weights, each with the shape (E, ...).

    The weights of the modules become views into the stack: they are always what the stack is.

    Args:
        modules: E networks.

    Raises:
        RuntimeError: their weights differ in shape.

    Example:
        >>> networks = [nn.Linear(3, 2), nn.Linear(3, 2)]
        >>> StackedWeights(networks).scores(torch.rand(5, 3)).shape
        torch.Size([2, 5, 2])
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        first = self._first = modules[0]
        self._buffers = {
            name: torch.stack([module.get_buffer(name) for module in modules]) for name, _ in first.named_buffers()
        }
        self._weights = {}
        for name, weight in first.named_parameters():
            own = [module.get_parameter(name) for module in modules]
            stacked = self._weights[name] = torch.stack([each.detach() for each in own])
            for each, view in zip(own, stacked.detach(), strict=True):
                each.data = view
            stacked.requires_grad_(weight.requires_grad)

    @property
    def tensors(self) -> list[Tensor]:
        """The stacked weights, each (E, ...), leaves of the graph."""
        return list(self._weights.values())

    def scores(self, inputs: Tensor) -> Tensor:
        """Class scores (E, N, K) of inputs (N, ...) that all networks share."""
        scores: Tensor = vmap(self._call, in_dims=(0, 0, None))(self._weights, self._buffers, inputs)
        return scores

    def _call(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        scores: Tensor = functional_call(self._first, (weights, buffers), (inputs,))
        return scores
