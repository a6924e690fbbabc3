"""One clear line when a loss is not a number."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.errors import UserError

__all__ = ["check_loss"]


def check_loss(loss: Tensor, inputs: Tensor, epoch: int, batch_idx: int) -> None:
    """Refuse a loss that is NaN or infinite and say whether the inputs or the training are to blame.

    Args:
        loss: scalar.
        inputs: shape (N, ...), the batch that gave it.
        epoch: counted from 0.
        batch_idx: counted from 0.

    Raises:
        UserError: the loss is not finite.
    """
    if torch.isfinite(loss):
        return
    where = f"epoch {epoch}, batch {batch_idx}"
    wrong = ~torch.isfinite(inputs.flatten(1)).all(dim=1)
    if wrong.any():
        raise UserError(
            f"inputs must be finite, got NaN or infinity in {int(wrong.sum())} of {len(inputs)} samples of {where} "
            f"(first: row {int(wrong.nonzero()[0])}); clean the data set"
        )
    raise UserError(
        f"the loss became {loss.item()} at {where} although the inputs are finite; lower the learning rate, "
        "clip gradients (--trainer.gradient_clip_val=1) or go on from the last checkpoint"
    )
