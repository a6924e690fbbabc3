"""What an attack maximises, one value a sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lightning_poison.functional.checks import check_choice

__all__ = ["LOSSES", "cross_entropy", "margin", "named_loss"]


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """``-log softmax(scores)[label]`` of each sample.

    Args:
        scores: shape (N, K), float.
        labels: shape (N,), int64.

    Returns:
        shape (N,).

    Example:
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
        tensor([0.6931])
    """
    return functional.cross_entropy(scores, labels, reduction="none")


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Highest score of another class minus the label's: positive exactly where the label doesn't win.

    Unlike cross-entropy its gradient doesn't vanish on samples that the network is very sure of (Carlini and Wagner,
    "Towards evaluating the robustness of neural networks", 2017, loss f6 without its cap).

    Args:
        scores: shape (N, K), float, K >= 2.
        labels: shape (N,), int64.

    Returns:
        shape (N,).

    Example:
        >>> margin(torch.tensor([[1.0, 3.0, 2.5]]), torch.tensor([1]))
        tensor([-0.5000])
    """
    own = functional.one_hot(labels, scores.shape[1]).bool()
    best_other = scores.masked_fill(own, -torch.inf).amax(dim=1)
    return best_other - scores.gather(1, labels[:, None]).squeeze(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin}


def named_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called ``name``.

    Raises:
        UserError: there is none.

    Example:
        >>> named_loss("margin") is margin
        True
    """
    return LOSSES[check_choice("losses", name, LOSSES)]
