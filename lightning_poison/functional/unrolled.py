"""Training that is recorded step by step, so that gradients flow through it to the labels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional

__all__ = ["gumbel_softmax", "mixed_labels", "unrolled_training"]


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    r"""Almost one-hot vectors: :math:`f_i = e^{(h_i + g_i) / \tau} / \sum_j e^{(h_j + g_j) / \tau}`.

    Source: Jang, Gu and Poole, 2017, eq. (2); thesis chapter 5.

    Args:
        logits: shape (..., n): h.
        noise: shape (..., n): g, draws of the Gumbel distribution, -log(-log(u)) with u uniform on (0, 1).
        temperature: tau, positive; small ones are closer to one-hot.

    Example:
        >>> import torch
        >>> gumbel_softmax(torch.tensor([0.0, 1.0]), torch.zeros(2), temperature=0.5)
        tensor([0.1192, 0.8808])
    """
    return ((logits + noise) / temperature).softmax(dim=-1)


def mixed_labels(clean: Tensor, flipped: Tensor, chosen: Tensor) -> Tensor:
    """Labels between clean and flipped: y' = y (1 - f) + y_new f (thesis chapter 5, where y_new = 1 - y).

    Args:
        clean: shape (n, K), float: one-hot y.
        flipped: shape (n, K), float: one-hot y_new.
        chosen: shape (b, n), float in [0, 1]: of each of b flips where it falls. A point counts as flipped unless every
            flip misses it: f = 1 - (1 - f_1) ... (1 - f_b), for a single flip f_1.

    Example:
        >>> import torch
        >>> mixed_labels(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25]]))
        tensor([[0.7500, 0.2500]])
    """
    flip = 1 - (1 - chosen).prod(dim=0)[:, None]
    return clean * (1 - flip) + flipped * flip


def unrolled_training(
    network: nn.Module, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor, steps: int, lr: float
) -> dict[str, Tensor]:
    """Weights after gradient steps on the cross-entropy of all points, as a differentiable function of the labels.

    Args:
        network: maps (n, ...) to logits (n, K); its own weights are not used.
        weights: to start from.
        inputs: shape (n, ...).
        labels: shape (n, K): the target distributions; a graph leads from the result to them.
        steps: how many.
        lr: their length.

    Returns:
        the weights by name.
    """

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(functional_call(network, weights, (inputs,)), labels)

    for _ in range(steps):
        slopes = grad(loss)(weights)
        weights = {name: weight - lr * slopes[name] for name, weight in weights.items()}
    return weights
