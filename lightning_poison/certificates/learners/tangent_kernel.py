"""The neural tangent kernel of a network as it is initialised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_poison.certificates.learners.kernels import Kernel
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.fresh_networks import check_maker, fresh_network
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.functional.tangents import Tangents, tangent_kernel, tangents

__all__ = ["TangentKernel"]


class TangentKernel(Kernel):
    r"""The inner product of a network's gradients at initialisation: its neural tangent kernel (Jacot et al., 2018).

    :math:`k(x, x') = \nabla_\theta f(x)^T \nabla_\theta f(x')`, where f adds up the network's outputs with random
    signs, and :math:`\theta` are **fresh** weights: ``fit`` makes the network, weights drawn from ``seed``, and runs
    it in eval mode on the CPU. A network that is made already is refused, and so is a function whose networks have the
    same weights under two seeds (see :func:`fresh_network`): no label can have gone into the weights. Kernel ridge
    regression with it is what a wide network of this architecture learns, with exact certificates.

    Inputs must reach the network in their own shape: ``KernelRidge(UnchangedInputs(), TangentKernel(make))``. Each
    point costs a gradient for each pass over the other side (512 MiB of gradients a pass); the products are float32.

    Args:
        network: makes the network when called: a class without arguments or a function. The network maps (N, ...) to
            (N, outputs) or (N,).
        seed: of the weights and signs.

    Raises:
        UserError: ``network`` makes no network, or one whose weights the seed does not decide.

    Example:
        >>> kernel = TangentKernel(lambda: nn.Linear(2, 1))
        >>> kernel.fit(torch.zeros(1, 2))
        >>> kernel.matrix(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[12.0, 1.0]]
    """

    def __init__(self, network: Callable[[], nn.Module], seed: int = 0) -> None:
        check_maker(network, "network")
        self.network = network
        self.seed = check_integer("seed", seed, minimum=0)
        self._fresh: nn.Module | None = None
        self._signs = torch.empty(0)

    def fit(self, features: Tensor) -> None:
        """Draw weights and signs; of the training inputs only the shape matters."""
        sample = torch.zeros_like(features[:1], dtype=torch.float32)
        try:
            self._fresh = fresh_network(self.network, mix_seed(self.seed, "tangent kernel"), sample)
            with torch.no_grad():
                outputs = self._fresh(sample).flatten(1).shape[1]
        except RuntimeError as error:
            raise UserError(
                f"network must take inputs of shape {tuple(features.shape[1:])} "
                f"({str(error).partition(chr(10))[0]}); give it the size of the data, and UnchangedInputs in front"
            ) from error
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
        kind = "network" if self._fresh is None else type(self._fresh).__name__
        return f"neural tangent kernel of a {kind} at initialisation (seed {self.seed})"
