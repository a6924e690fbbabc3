"""The neural tangent kernel of a network as it is initialised."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lightning_poison.certificates.learners.kernels import Kernel
from lightning_poison.errors import UserError
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.functional.tangents import Tangents, tangent_kernel, tangents

__all__ = ["TangentKernel"]


class TangentKernel(Kernel):
    r"""The inner product of a network's gradients at initialisation: its neural tangent kernel (Jacot et al., 2018).

    :math:`k(x, x') = \nabla_\theta f(x)^T \nabla_\theta f(x')`, where f adds up the network's outputs with random
    signs, and :math:`\theta` are **fresh** weights: ``fit`` copies the network, draws its weights anew from ``seed``
    and runs it in eval mode on the CPU, so that no label can have gone into the kernel, whatever the network was
    trained on. Kernel ridge regression with it is what a wide network of this architecture learns, with exact
    certificates.

    Inputs must reach the network in their own shape: ``KernelRidge(UnchangedInputs(), TangentKernel(network))``. Each
    point costs a gradient for each pass over the other side (512 MiB of gradients a pass); the products are float32.

    Args:
        network: maps (N, ...) to (N, outputs) or (N,); its present weights are not used.
        seed: of the weights and signs.

    Raises:
        UserError: the network has parameters that it cannot draw anew.

    Example:
        >>> kernel = TangentKernel(nn.Linear(2, 1))
        >>> kernel.fit(torch.zeros(1, 2))
        >>> kernel.matrix(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[12.0, 1.0]]
    """

    def __init__(self, network: nn.Module, seed: int = 0) -> None:
        self.network = network
        self.seed = seed
        self._fresh: nn.Module | None = None
        self._signs = torch.empty(0)

    def fit(self, features: Tensor) -> None:
        """Draw weights and signs; of the training inputs only the shape matters."""
        self._fresh = _initialised(self.network, mix_seed(self.seed, "tangent kernel"))
        with torch.no_grad():
            outputs = self._fresh(features[:1].float()).flatten(1).shape[1]
        self._signs = torch.randint(2, (outputs,), generator=generator(self.seed, "output signs")).float() * 2 - 1

    def matrix(self, points: Tensor, others: Tensor) -> Tensor:
        """The inner products of gradients."""
        return tangent_kernel(points, others, self._tangents).double()

    def _tangents(self, inputs: Tensor) -> Tangents:
        """Gradients of each input's summed outputs."""
        return tangents(self._network(), inputs.float(), lambda scores: scores.flatten(1) @ self._signs)

    def _network(self) -> nn.Module:
        if self._fresh is None:
            raise UserError("TangentKernel must be fitted before use, got no weights; call fit(features) first")
        return self._fresh

    def describe(self) -> str:
        """The kernel in a few words."""
        return f"neural tangent kernel of a {type(self.network).__name__} at initialisation (seed {self.seed})"


def _initialised(network: nn.Module, seed: int) -> nn.Module:
    """A copy in eval mode on the CPU with all weights drawn anew; the global random state stays as it is."""
    fresh = copy.deepcopy(network).cpu().float().eval()
    with kept_random_state(seed):
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise UserError(
                    f"network must draw its weights anew, got {type(module).__name__} without reset_parameters; "
                    "add the method, as torch.nn's layers have it"
                )
    return fresh
