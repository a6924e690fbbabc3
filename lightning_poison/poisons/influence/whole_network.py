"""Influence of flips on all weights of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.functional import cross_entropy

from lightning_poison.attacks import frozen_eval
from lightning_poison.errors import UserError
from lightning_poison.functional.conjugate_gradients import conjugate_gradients
from lightning_poison.functional.forward_mode import jvp
from lightning_poison.functional.progress import Progress

__all__ = ["Linearised", "network_tangents"]

_CHUNK = 500
_STEPS, _TOLERANCE = 100, 1e-3


class Linearised:
    """A network as a function of its weights, near those that it has.

    Args:
        network: maps (N, ...) to logits (N, K); use it within ``frozen_eval(network)``.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._weights = {name: weight.detach() for name, weight in network.named_parameters()}
        self.device = next(iter(self._weights.values())).device
        self.size = sum(weight.numel() for weight in self._weights.values())

    def tangents(self, inputs: Tensor, direction: Tensor) -> Tensor:
        """Derivative J v of the logits along a direction of the weights: (N, K), for v of shape (``size``,)."""
        return self._pushed(inputs.to(self.device), direction)[1].double().cpu()

    def loss_gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Gradient of the summed cross-entropy, shape (``size``,), float64."""
        pull: Callable[[Tensor], tuple[dict[str, Tensor]]]
        loss, pull = vjp(  # type: ignore[misc]  # the pair that has_aux=False gives
            lambda weights: cross_entropy(self._scores(weights, inputs), labels, reduction="sum"), self._weights
        )
        return self._flat(pull(torch.ones_like(loss))[0])

    def curvature_product(self, inputs: Tensor, direction: Tensor) -> Tensor:
        """Gauss-Newton product, sum of J^T (diag(p) - p p^T) J v, shape (``size``,), float64."""
        scores, tangents = self._pushed(inputs, direction)
        p = torch.softmax(scores, dim=1)
        pushed = p * (tangents - (p * tangents).sum(dim=1, keepdim=True))
        pull: Callable[[Tensor], tuple[dict[str, Tensor]]]
        _, pull = vjp(lambda weights: self._scores(weights, inputs), self._weights)  # type: ignore[misc]  # as above
        return self._flat(pull(pushed)[0])

    def _scores(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, weights, (inputs,))
        return logits

    def _pushed(self, inputs: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        parts = torch.split(direction, [weight.numel() for weight in self._weights.values()])
        tangents = {
            name: part.to(weight).view_as(weight)
            for (name, weight), part in zip(self._weights.items(), parts, strict=True)
        }
        scores, moved = jvp(lambda weights: self._scores(weights, inputs), (self._weights,), (tangents,))
        return scores, moved

    @staticmethod
    def _flat(gradient: dict[str, Tensor]) -> Tensor:
        return torch.cat([part.flatten() for part in gradient.values()]).double().cpu()


def network_tangents(
    network: nn.Module,
    inputs: Tensor,
    rows: Tensor,
    curvature: Tensor,
    outer: tuple[Tensor, Tensor],
    damping: float,
    progress: Progress,
) -> Tensor:
    r"""How each point's scores move along :math:`s = (G + \lambda I)^{-1} \nabla L_\mathrm{outer}`.

    G is the Gauss-Newton matrix of the mean cross-entropy, which is positive semi-definite where the Hessian need not
    be; the system is solved by conjugate gradients with products alone.

    Args:
        network: maps (N, ...) to logits (N, K).
        inputs: shape (n, ...).
        rows: shape (m,), int64: the points whose scores are asked for.
        curvature: shape (c,), int64: the points that G is the mean over.
        outer: inputs (o, ...) and labels (o,) of the points that judge.
        damping: lambda, positive.
        progress: shows how far the work is.

    Returns:
        shape (m, K), float64.

    Raises:
        UserError: the system is too badly conditioned to be solved.
    """
    with frozen_eval(network):
        linear = Linearised(network)
        device = linear.device
        gradient = torch.zeros(linear.size, dtype=torch.float64)
        for part, labels in zip(torch.split(outer[0], _CHUNK), torch.split(outer[1], _CHUNK), strict=True):
            gradient += linear.loss_gradient(part.to(device), labels.to(device)) / len(outer[0])

        def product(direction: Tensor) -> Tensor:
            image = damping * direction
            for part in torch.split(curvature, _CHUNK):
                image += linear.curvature_product(inputs[part].to(device), direction) / len(curvature)
            return image

        with progress("influence: conjugate gradients", _STEPS) as advance:
            solution = conjugate_gradients(product, gradient, tolerance=_TOLERANCE, max_steps=_STEPS, advance=advance)
        if solution.residual > 0.1:
            raise UserError(
                f"damping must be larger for this network, got {damping:g}, with which {_STEPS} steps of conjugate "
                f"gradients leave {solution.residual:.0%} of the residual"
            )
        with progress("influence: candidates", len(rows)) as advance:
            parts = []
            for part in torch.split(rows, _CHUNK):
                parts.append(linear.tangents(inputs[part], solution.value))
                advance(len(part))
    return torch.cat(parts)
