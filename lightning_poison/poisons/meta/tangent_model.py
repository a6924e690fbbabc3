"""A network linearised at its initial weights, fitted to labels exactly."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_poison.functional.forward_mode import jvp
from lightning_poison.functional.kernel_fit import KernelFit
from lightning_poison.functional.tangents import Tangents, tangent_kernel, tangents
from lightning_poison.poisons.meta.outer_points import OuterAttack

__all__ = ["TangentModel"]

_BLOCK = 500


class TangentModel:
    r"""What a wide network of one architecture would learn, in closed form.

    The network's first-order expansion in its weights, :math:`s_c(x) = \nabla_\theta f(x)^T w_c`, is ridge regression
    with the neural tangent kernel :math:`k(x, x') = \nabla_\theta f(x)^T \nabla_\theta f(x')` (Jacot et al., 2018),
    here scaled to a mean of 1 on the diagonal. Its scores have gradients with respect to the input: it can be attacked.

    Args:
        network: at its initial weights, in eval mode, with two outputs; f is their difference.
        points: shape (n, ...), float32: training points and candidates.
        training: shape (t,), int64: which of them are fitted.
        targets: shape (t, K), float: their one-hot labels.
        noise: strength of the ridge, in units of the scaled kernel.
    """

    def __init__(
        self,
        network: nn.Module,
        points: Tensor,
        training: Tensor,
        targets: Tensor,
        noise: float,
    ) -> None:
        self._network, self._points = network, points
        kernel = tangent_kernel(points, points, self._tangents)
        self._scale = float(kernel.diagonal().mean()) or 1.0
        self.fit = KernelFit(kernel.div_(self._scale), training, targets, noise)

    def kernel(self, inputs: Tensor) -> Tensor:
        """The scaled kernel of other inputs with all points: (m, n), float32."""
        return tangent_kernel(inputs, self._points, self._tangents) / self._scale

    def attacked(self, inputs: Tensor, pairs: Tensor, coefficients: Tensor, attack: OuterAttack) -> Tensor:
        """Inputs moved so that the score of their class falls below that of a rival.

        Args:
            inputs: shape (m, ...).
            pairs: shape (m, 2), int64: of each its class and the rival.
            coefficients: shape (n, K): of the fit, see :meth:`ForcedFit.coefficients`.
            attack: how.

        Returns:
            shape (m, ...).
        """
        weights = self._weights(coefficients)
        attacked = inputs.clone()
        for own, rival in torch.unique(pairs, dim=0).tolist():
            rows = (pairs == torch.tensor([own, rival])).all(dim=1).nonzero()[:, 0]
            margin = {name: weight[own] - weight[rival] for name, weight in weights.items()}
            for part in torch.split(rows, _BLOCK):
                attacked[part] = attack.descend(inputs[part], partial(self._value, direction=margin))
        return attacked

    def _tangents(self, inputs: Tensor) -> Tangents:
        return tangents(self._network, inputs, _difference)

    def _weights(self, coefficients: Tensor) -> dict[str, Tensor]:
        r"""For each class :math:`w_c = \sum_i a_{ic} \nabla_\theta f(x_i)`: of each weight K of its shape."""
        names, weights = zip(*self._network.named_parameters(), strict=True)
        classes = range(coefficients.shape[1])
        coefficients = coefficients / self._scale
        totals = [torch.zeros(len(classes), *weight.shape) for weight in weights]
        used = coefficients.any(dim=1).nonzero()[:, 0]
        for part in torch.split(used, _BLOCK):
            with torch.enable_grad():
                values = _difference(self._network(self._points[part]))
            for label in classes:
                slopes = torch.autograd.grad(
                    values, weights, coefficients[part, label].to(values), retain_graph=True, allow_unused=True
                )
                for total, slope in zip(totals, slopes, strict=True):
                    if slope is not None:
                        total[label] += slope
        return dict(zip(names, totals, strict=True))

    def _value(self, inputs: Tensor, direction: dict[str, Tensor]) -> Tensor:
        """The derivative of f in a direction of the weights, (N,), with a graph to the inputs."""
        weights = {name: weight.detach() for name, weight in self._network.named_parameters()}
        slope: Tensor = jvp(lambda moved: functional_call(self._network, moved, (inputs,)), (weights,), (direction,))[1]
        return _difference(slope)


def _difference(outputs: Tensor) -> Tensor:
    return outputs[:, 0] - outputs[:, 1]
