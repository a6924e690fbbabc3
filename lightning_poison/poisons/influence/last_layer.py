"""Influence of flips on a network's last layer, everything before it being fixed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_poison.errors import UserError
from lightning_poison.functional.softmax_regression import SoftmaxRegression
from lightning_poison.poisons.surrogates.last_layer import LastLayer

__all__ = ["last_layer_tangents"]


def last_layer_tangents(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    outer: Tensor,
    damping: float,
    perturbed: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> Tensor:
    r"""How each point's scores move along :math:`s = H^{-1} \nabla L_\mathrm{outer}`.

    The last layer is fitted anew, to the features of all points but the outer ones, with an L2 penalty, so that its
    weights are an exact minimum; H is the Hessian of that objective.

    Args:
        network: ends in a linear layer.
        inputs: shape (n, ...).
        labels: shape (n,), int64.
        num_classes: outputs of the new last layer.
        outer: shape (m,), int64: the points that judge.
        damping: the penalty, relative to the mean square of the features.
        perturbed: moves outer inputs, given the network with the new last layer and their labels.

    Returns:
        shape (n, K), float64.

    Raises:
        UserError: the network does not end in a linear layer, or the damping is too small.
    """
    last = LastLayer(network)
    features, scale = _with_constant(last.features(inputs))
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[outer] = False
    model = SoftmaxRegression(features[kept], labels[kept], num_classes, strength=damping * scale**2)
    judge = last.replaced(model.weights[:, :-1], model.weights[:, -1] * scale)
    moved = perturbed(judge, inputs[outer], labels[outer])
    seen, _ = _with_constant(last.features(moved), scale)
    errors = torch.softmax(seen @ model.weights.T, dim=1)
    errors[torch.arange(len(outer)), labels[outer]] -= 1
    return features @ model.solve(errors.T @ seen / len(outer)).T


def _with_constant(features: Tensor, scale: float | None = None) -> tuple[Tensor, float]:
    """The features in float64 with a constant as large as their root mean square, and this constant."""
    wide = features.double()
    scale = math.sqrt(float(wide.square().mean())) if scale is None else scale
    if scale == 0:
        raise UserError("the surrogate's last layer sees zeros only; name a surrogate that has learnt the data")
    return torch.cat([wide, torch.full((len(wide), 1), scale, dtype=torch.float64)], dim=1), scale
