"""Reading Lightning's batches: inputs, labels, and which samples they are."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_integer, as_list, kind_shown
from lightning_poison.trainer.positions import evaluation_positions as sample_positions

__all__ = ["inputs_and_labels", "sample_positions"]


def inputs_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """The first two entries of a batch: inputs (N, ...) and class numbers (N,), int64.

    Args:
        batch: a tuple or list of a tensor and labels, which may be a tensor of any integer type, an array or a list.

    Raises:
        UserError: the batch is something else; the message says what came, and what is wanted.

    Example:
        >>> inputs_and_labels([torch.zeros(2, 3), torch.tensor([1, 0], dtype=torch.uint8), "more"])[1]
        tensor([1, 0])
    """
    entries = as_list(batch)
    if entries is None or len(entries) < 2:
        raise UserError(
            f"a batch must be (inputs, integer labels, ...), got {kind_shown(batch)}; "
            "let the data set return (input, label) pairs"
        )
    inputs, labels = entries[:2]
    labels = _as_tensor(labels, inputs)
    if isinstance(inputs, Tensor) and isinstance(labels, Tensor) and labels.ndim == 1 and not _is_real(labels):
        return inputs, labels.long()
    raise UserError(f"a batch must be (inputs, integer labels, ...), {_complaint(inputs, labels, entries[2:])}")


def _as_tensor(labels: Any, inputs: Any) -> Any:
    """Labels in a list or an array as a tensor beside the inputs; others as they are."""
    if isinstance(labels, np.ndarray) or (isinstance(labels, (list, tuple)) and labels and _all_integers(labels)):
        with suppress(TypeError, ValueError):
            return torch.as_tensor(np.asarray(labels), device=getattr(inputs, "device", None))
    return labels


def _all_integers(values: list[Any] | tuple[Any, ...]) -> bool:
    return all(as_integer(value) is not None for value in values)


def _is_real(values: Tensor) -> bool:
    return values.is_floating_point() or values.is_complex()


def _complaint(inputs: Any, labels: Any, more: list[Any]) -> str:
    """What came instead of inputs (N, ...) and integer labels (N,), and what helps."""
    shown = kind_shown(labels)
    if not isinstance(labels, Tensor):
        return f"got {shown} for the labels; let the data set return (input, label) pairs with class numbers"
    if _is_numbering(inputs) and labels.ndim > 1 and more and _is_numbering(more[0]):
        kinds = ", ".join(f"{tuple(part.shape)} {part.dtype}" for part in (inputs, labels, more[0]))
        return f"got {kinds}: it looks like (index, inputs, labels); let the index stand behind the labels"
    if not isinstance(inputs, Tensor):
        return f"got {kind_shown(inputs)} for the inputs; let collate_fn make one tensor of them"
    wanted = f"with labels of shape (N,), got {shown}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        return f"{wanted}; take their last axis away (labels.squeeze(1)), and make class numbers of them"
    if _is_real(labels) and labels.ndim == 2:
        return (
            f"{wanted}, which are soft or one-hot, as MixUp and CutMix make them; mix in training_step rather than in "
            "collate_fn or a transfer hook, or give class numbers (labels.argmax(1))"
        )
    if labels.ndim == 2:
        return f"{wanted}; if they are one-hot, give class numbers (labels.argmax(1))"
    return f"{wanted}; give class numbers 0 to K - 1, one a sample, as integers (labels.long())"


def _is_numbering(values: Any) -> bool:
    """Whether it holds one integer for each sample."""
    return isinstance(values, Tensor) and values.ndim == 1 and not _is_real(values)
