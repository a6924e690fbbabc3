"""A network at the end of its training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["TrainedNetwork"]


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
