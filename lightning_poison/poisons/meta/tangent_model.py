"""A network linearised at its initial weights, fitted to labels exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_poison.errors import UserError
from lightning_poison.functional.fresh_networks import fresh_network
from lightning_poison.functional.kernel_fit import KernelFit
from lightning_poison.functional.tangents import Tangents, jvp, tangent_kernel, tangents
from lightning_poison.nets.building import build_net
from lightning_poison.poisons.meta.outer_attack import OuterAttack

__all__ = ["TangentModel", "fresh_surrogate"]

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

            def value(points: Tensor, _: Tensor, margin: dict[str, Tensor] = margin) -> Tensor:
                return self._value(points, margin)

            attacked[rows] = attack.descend(inputs[rows], value, _BLOCK)
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


def fresh_surrogate(net: Callable[[int], nn.Module], seed: int, sample: Tensor) -> nn.Module:
    """A network with two outputs at its initial weights, see :func:`fresh_network`.

    Args:
        net: makes it when called with ``num_classes=2``.
        seed: of the weights.
        sample: shape (N, ...): some inputs, which it must take.

    Raises:
        UserError: it does not, or its weights are not those of the seed.
    """
    network = fresh_network(partial(build_net, net, 2), seed, name="each of nets")
    try:
        with torch.no_grad():
            scores = network(sample)
            weights = dict(network.named_parameters())
            jvp(lambda moved: functional_call(network, moved, (sample,)), (weights,), (weights,))
    except NotImplementedError as error:
        raise UserError(
            f"the surrogate {type(network).__name__} has an operation without a forward derivative "
            f"({str(error).partition(chr(10))[0][:80]}); name networks of plain layers"
        ) from error
    except (RuntimeError, ValueError) as error:
        shape, reason = tuple(sample.shape[1:]), str(error).partition("\n")[0]
        raise UserError(
            f"the surrogate {type(network).__name__} cannot take inputs of shape {shape} ({reason}); "
            "name networks for this data"
        ) from error
    if scores.shape != (len(sample), 2):
        raise UserError(
            f"the surrogate {type(network).__name__} must give 2 scores when made with num_classes=2, got shape "
            f"{tuple(scores.shape)} for {len(sample)} inputs"
        )
    return network


def _difference(outputs: Tensor) -> Tensor:
    return outputs[:, 0] - outputs[:, 1]
