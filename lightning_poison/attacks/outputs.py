"""Models whose forward returns more than the logits, and what to say where one is called wrongly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.errors import UserError

__all__ = ["SelectOutput", "are_scores", "called", "selected_output", "why_no_scores"]


# --- one item of the output -------------------------------------------------------------------------------------------


class SelectOutput(nn.Module):
    """A model reduced to one item of its output, which holds the logits.

    Args:
        model: its forward returns a tuple, a list, a mapping or an object with attributes.
        item: position in the sequence, or key of the mapping or name of the attribute.

    Raises:
        UserError: when called: the output has no such item.

    Example:
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


# --- calls that a model was not made for ------------------------------------------------------------------------------


def called(model: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """The model's output; a model that isn't made to be called so is told from one that fails.

    Args:
        model: maps (N, ...) to anything.
        inputs: shape (N, ...).

    Raises:
        UserError: it has no forward, or one that takes something else. Every other failure of the model's stays as it
            is.

    Example:
        >>> called(lambda inputs, labels: inputs, torch.ones(1, 2))
        Traceback (most recent call last):
        ...
        lightning_poison.errors.UserError: the model must take the inputs alone, got one that takes (inputs, labels); \
give the other arguments defaults, or attack a module whose forward maps inputs to logits
    """
    try:
        return model(inputs)
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        mistake = _mistaken_call(model, inputs, error)
        if mistake is None:
            raise
        raise UserError(mistake) from error


def are_scores(scores: Any, count: int) -> bool:
    """Whether ``scores`` are floats of shape (``count``, K), K >= 2.

    Example:
        >>> are_scores(torch.rand(3, 2), 3), are_scores(torch.rand(3, 1), 3)
        (True, False)
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        return False
    return scores.ndim == 2 and len(scores) == count and scores.shape[1] >= 2


def why_no_scores(model: Callable[[Tensor], Any], inputs: Tensor, scores: Tensor) -> str:
    """What to say of a tensor that holds no class scores.

    Args:
        model: maps (N, ...) to something.
        inputs: shape (N, ...).
        scores: what it gave for them.
    """
    count, shape = len(inputs), tuple(scores.shape)
    if scores.is_floating_point() and shape in {(count,), (count, 1)}:
        joined = "torch.cat" if scores.ndim == 2 else "torch.stack"
        return (
            f"class scores must be one logit a class, got shape {shape}: one logit for both of two classes is not "
            f"supported yet; let the model's forward return {joined}([0 * z, z], dim=1) of that logit z, and train it "
            "with cross-entropy, which is then the same loss"
        )
    if are_scores(_of_a_batch(model, inputs), count):
        return _wants_a_batch(model)
    return (
        f"class scores must be floats of shape ({count}, number of classes >= 2), "
        f"got shape {shape}, dtype {scores.dtype}; let the model's forward return one logit a class"
    )


def _mistaken_call(model: Callable[[Tensor], Any], inputs: Tensor, error: Exception) -> str | None:
    """What is wrong with calling ``model`` on inputs alone; None where it is the model's own failure."""
    owner = _owner(model)
    name = type(owner).__name__
    if isinstance(error, NotImplementedError) and f'[{name}] is missing the required "forward"' in str(error):
        return (
            f"{name} has no forward, so nothing tells what it predicts; give it a forward that maps inputs to logits, "
            "the same as its steps (where it returns more than these, output says where they stand)"
        )
    if isinstance(error, TypeError):
        forward = owner.forward if isinstance(owner, nn.Module) else owner
        try:
            inspect.signature(forward).bind(inputs)
        except TypeError:
            wanted = str(inspect.signature(forward))
            return (
                f"{_forward_of(owner)} must take the inputs alone, got one that takes {wanted}; give the other "
                "arguments defaults, or attack a module whose forward maps inputs to logits"
            )
        except ValueError:  # written in C
            return None
    return None if _of_a_batch(owner, inputs) is None else _wants_a_batch(model)


def _of_a_batch(model: Callable[..., Any], inputs: Tensor) -> Any:
    """What the model makes of (inputs, labels), None where that fails."""
    labels = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    try:
        with torch.no_grad():
            return model((inputs.detach().clone(), labels))
    except Exception:  # noqa: BLE001  # it is the model's code, which wasn't made for this
        return None


def _wants_a_batch(model: Callable[[Tensor], Any]) -> str:
    return (
        f"{_forward_of(_owner(model))} must map inputs to logits, got one that takes a whole batch (inputs, labels); "
        "let it take the inputs alone, and its steps unpack the batch"
    )


def _forward_of(owner: Callable[..., Any]) -> str:
    return f"forward of {type(owner).__name__}" if isinstance(owner, nn.Module) else "the model"


def _owner(model: Callable[..., Any]) -> Callable[..., Any]:
    """The user's model within what selects its output."""
    while isinstance(model, SelectOutput):
        model = model.model
    return model
