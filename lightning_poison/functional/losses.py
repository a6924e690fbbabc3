"""What an attack maximises, one value a sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice

__all__ = ["LOSSES", "cross_entropy", "dlr", "margin", "named_loss"]


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


def dlr(scores: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio: the margin, divided by the first minus the third of the ordered scores.

    ``(max_{i != y} z_i - z_y) / (z_pi1 - z_pi3)`` (Croce and Hein, "Reliable evaluation of adversarial robustness with
    an ensemble of diverse parameter-free attacks", 2020, eq. (6)). Neither shifting all scores nor multiplying them by
    a positive number changes it, so a network can't hide its gradient by large scores. It is positive exactly where the
    label doesn't win, and at least -1.

    A targeted attack descends it with the target as label, and success is a negative value, as with the margin. There
    the paper's formula would get stuck: where the label's score is the third it is 1, whatever the scores are. So z_pi3
    is here the second highest score besides the label's: the same wherever the label comes first or second, hence
    until an untargeted attack succeeds.

    Where the scores in the denominator tie, it is held at their rounding error: value and gradient stay finite.

    Args:
        scores: shape (N, K), float, K >= 3.
        labels: shape (N,), int64.

    Returns:
        shape (N,).

    Raises:
        UserError: there are fewer than three classes.

    Example:
        >>> dlr(torch.tensor([[1.0, 3.0, 2.5]]), torch.tensor([1]))
        tensor([-0.2500])
    """
    if scores.shape[1] < 3:
        raise UserError(f"the loss dlr needs at least 3 classes, got {scores.shape[1]}; use margin instead")
    own = functional.one_hot(labels, scores.shape[1]).bool()
    first, second = scores.masked_fill(own, -torch.inf).topk(2, dim=1).values.unbind(dim=1)
    label = scores.gather(1, labels[:, None]).squeeze(1)
    peaks = scores.detach().abs().amax(dim=1)
    rounding = torch.where(peaks > 0, peaks, 1) * torch.finfo(scores.dtype).eps
    return (first - label) / (torch.maximum(first, label) - second).clamp_min(rounding)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}


def named_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called ``name``.

    Raises:
        UserError: there is none.

    Example:
        >>> named_loss("margin") is margin
        True
    """
    return LOSSES[check_choice("losses", name, LOSSES)]
