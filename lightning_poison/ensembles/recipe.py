"""How a small network is trained, and what comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_poison.functional.checks import check_choice, check_integer_field, check_number_field

__all__ = ["TrainedNetwork", "TrainingRecipe"]

_LAST, _EXTRA = 0.01, 0.1  # of the first rate: at the end, and while flips are still to be fitted


@dataclass(frozen=True)
class TrainingRecipe:
    """AdamW on the cross-entropy, with a rate that falls to a hundredth along a half cosine.

    Args:
        epochs: passes over the training set.
        lr: first rate.
        batch_size: points of a step; the last batch of an epoch may be smaller.
        weight_decay: of AdamW; 0: none.
        schedule: "cosine" or "constant".
        extra_epochs: how many more, at most, while watched points (the flips) are not all fitted; after a cosine at a
            tenth of the first rate.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> TrainingRecipe(epochs=30).epochs
        30
    """

    epochs: int = 20
    lr: float = 2e-3
    batch_size: int = 128
    weight_decay: float = 0.0
    schedule: str = "cosine"
    extra_epochs: int = 0

    def __post_init__(self) -> None:
        check_integer_field(self, "epochs", minimum=1)
        check_number_field(self, "lr", minimum=1e-12)
        check_integer_field(self, "batch_size", minimum=1)
        check_number_field(self, "weight_decay", minimum=0)
        check_choice("schedule", self.schedule, ("cosine", "constant"))
        check_integer_field(self, "extra_epochs", minimum=0)

    def rate(self, epoch: float) -> float:
        """The learning rate after so many epochs, a whole number or not.

        Example:
            >>> recipe = TrainingRecipe(epochs=10, lr=1.0)
            >>> recipe.rate(0), round(recipe.rate(5), 3), recipe.rate(10), recipe.rate(12.5)
            (1.0, 0.505, 0.1, 0.1)
        """
        if self.schedule == "constant":
            return self.lr
        if epoch >= self.epochs:
            return self.lr * _EXTRA
        share = epoch / self.epochs
        return self.lr * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * share)) / 2)


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network and how its training went.

    Args:
        module: the network in eval mode, its weights frozen.
        seed: of its initial weights.
        epochs: how many it was trained for.
        loss: mean training loss of the last epoch; NaN where training diverged.
        fitted: share of the watched points whose training label it predicts; NaN where none was watched.
        right: shape (epochs, n), bool: whether each point was predicted right when its batch came up in each epoch,
            before the step, as :func:`lightning_poison.functional.forgetting.forgetting_events` counts it; None unless
            it was asked for.
    """

    module: nn.Module
    seed: int
    epochs: int
    loss: float
    fitted: float
    right: Tensor | None = None
