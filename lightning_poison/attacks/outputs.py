"""Models whose forward returns more than the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_poison.errors import UserError

__all__ = ["SelectOutput", "selected_output"]


class SelectOutput(nn.Module):
    """A model reduced to one item of its output, which holds the logits.

    Args:
        model: its forward returns a tuple, a list, a mapping or an object with attributes.
        item: position in the sequence, or key of the mapping or name of the attribute.

    Raises:
        UserError: when called: the output has no such item.

    Example:
        >>> import torch
        >>> class WithFeatures(nn.Module):
        ...     def forward(self, x):
        ...         return {"logits": x.sum(dim=1), "features": x}
        >>> SelectOutput(WithFeatures(), "logits")(torch.ones(1, 3, 2))
        tensor([[3., 3.]])
    """

    def __init__(self, model: nn.Module, item: int | str) -> None:
        super().__init__()
        self.model, self.item = model, item
        self.training = model.training  # not ``train()``, which would reach into the model

    def forward(self, inputs: Tensor) -> Any:
        """The chosen item of the model's output."""
        output = self.model(inputs)
        if isinstance(self.item, str):
            return _named(output, self.item)
        if not isinstance(output, Sequence) or not -len(output) <= self.item < len(output):
            raise UserError(
                f"output must say where in the model's output the logits stand, got {self.item} for "
                f"{_in_words(output)}; {_remedy(output)}"
            )
        return output[self.item]


def selected_output(model: nn.Module, item: int | str | None) -> nn.Module:
    """``model`` itself, or one item of its output where ``item`` is given.

    Example:
        >>> selected_output(nn.Identity(), None)
        Identity()
    """
    return model if item is None else SelectOutput(model, item)


def _named(output: Any, name: str) -> Any:
    if isinstance(output, Mapping) and name in output:
        return output[name]
    if not isinstance(output, (Mapping, Tensor)) and hasattr(output, name):
        return getattr(output, name)
    raise UserError(
        f"output must name an item of the model's output, got {name!r} for {_in_words(output)}; {_remedy(output)}"
    )


def _in_words(output: Any) -> str:
    if isinstance(output, Tensor):
        return "a tensor"
    if isinstance(output, Mapping):
        return f"a mapping with {', '.join(map(repr, output))}"
    if isinstance(output, Sequence):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _remedy(output: Any) -> str:
    if isinstance(output, Tensor):
        return "leave output out"
    if isinstance(output, Sequence) and not isinstance(output, Mapping):
        return f"use a position from 0 to {len(output) - 1}"
    return "use one of its names"
