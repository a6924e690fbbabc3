"""Reading Lightning's batches: inputs, labels, and which samples they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.trainer.positions import evaluation_positions as sample_positions

__all__ = ["inputs_and_labels", "sample_positions"]


def inputs_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """The first two entries of a batch: inputs (N, ...) and integer labels (N,).

    Raises:
        UserError: the batch is not a sequence that begins with two such tensors.
    """
    if isinstance(batch, Sequence) and len(batch) >= 2:
        inputs, labels = batch[0], batch[1]
        tensors = isinstance(inputs, Tensor) and isinstance(labels, Tensor)
        if tensors and labels.ndim == 1 and not labels.is_floating_point():
            return inputs, labels
    raise UserError(
        f"a batch must be (inputs, integer labels, ...), got {type(batch).__name__}; "
        "let the data set return (input, label) pairs"
    )
