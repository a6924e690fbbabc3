"""Similarities of points that see no label, the tangent kernel of a network among them."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lightning_poison.certificates.features.random_fourier import median_distance
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_kind, check_number
from lightning_poison.functional.fresh_networks import check_maker, fresh_network
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.functional.ridge import rows_per_chunk
from lightning_poison.functional.scale import rescaled
from lightning_poison.functional.tangents import Tangents, tangent_kernel, tangents

__all__ = ["CosineKernel", "Kernel", "RBFKernel", "SimilarityToTraining", "TangentKernel"]


_MEDIAN_POINTS = 1000
_REMEDY = "clean the inputs or change the feature map"


class Kernel(ABC):
    """A symmetric positive semi-definite similarity, which learns what it needs from training inputs alone."""

    @abstractmethod
    def fit(self, features: Tensor) -> None:
        """Learn from the training points' features, shape (n, ...)."""

    @abstractmethod
    def matrix(self, points: Tensor, others: Tensor) -> Tensor:
        """Similarities of all pairs.

        Args:
            points: shape (m, ...), any float dtype.
            others: shape (n, ...), alike.

        Returns:
            shape (m, n), float64.
        """

    @abstractmethod
    def describe(self) -> str:
        """The kernel in a few words, such as "cosine kernel"."""


class CosineKernel(Kernel):
    """The cosine of the angle between two points; a point at the origin is like none.

    Args:
        centre: measure angles around the mean of the training points, so that similarities have either sign.

    Example:
        >>> points = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> CosineKernel().matrix(points, torch.tensor([[1.0, 0.0], [0.0, -2.0]])).tolist()
        [[0.6..., -0.8...], [0.0, 0.0]]
    """

    def __init__(self, centre: bool = False) -> None:
        self.centre = centre
        self._mean: Tensor | None = None

    def fit(self, features: Tensor) -> None:
        """Remember the mean."""
        check_finite("features", features, remedy=_REMEDY)
        self._mean = features.flatten(1).mean(0, dtype=torch.float64) if self.centre else None

    def matrix(self, points: Tensor, others: Tensor) -> Tensor:
        """The cosines."""
        return self._unit(points) @ self._unit(others).T

    def _unit(self, points: Tensor) -> Tensor:
        rows = points.flatten(1).double()
        if self._mean is not None:
            rows = rows - self._mean
        return torch.nn.functional.normalize(rescaled(rows), dim=1)

    def describe(self) -> str:
        """The kernel in a few words."""
        return "centred cosine kernel" if self.centre else "cosine kernel"


class RBFKernel(Kernel):
    r"""The Gaussian kernel :math:`\exp(-\|x - x'\|^2 / (2 b^2))`.

    Args:
        bandwidth: b, a distance between features; None: the median distance between training points (of at most
            1,000, evenly spread), which sees no label.

    Example:
        >>> RBFKernel(bandwidth=1.0).matrix(torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])).exp().tolist()
        [[1.4446...]]
    """

    def __init__(self, bandwidth: float | None = None) -> None:
        if bandwidth is not None and check_number("bandwidth", bandwidth, minimum=0) == 0:
            raise UserError("bandwidth must be larger than 0, got 0; leave it out for the median distance")
        self.bandwidth = bandwidth
        self._fitted_bandwidth = bandwidth

    def fit(self, features: Tensor) -> None:
        """Find the median distance where no bandwidth is given."""
        check_finite("features", features, remedy=_REMEDY)
        if self.bandwidth is None:
            some = features[:: max(len(features) // _MEDIAN_POINTS, 1)].flatten(1).double()
            self._fitted_bandwidth = median_distance(some)

    def matrix(self, points: Tensor, others: Tensor) -> Tensor:
        """The Gaussian of the distances."""
        if self._fitted_bandwidth is None:
            raise UserError("RBFKernel must be fitted before use, got no bandwidth; call fit(features) or give one")
        scale = 2.0 ** (math.frexp(self._fitted_bandwidth)[1] - 1)
        one, two = points.flatten(1).double() / scale, others.flatten(1).double() / scale
        squares = torch.addmm(two.square().sum(1), one, two.T, alpha=-2).add_(one.square().sum(1)[:, None])
        return squares.clamp_(min=0).div_(-2 * (self._fitted_bandwidth / scale) ** 2).exp_()

    def describe(self) -> str:
        """The kernel in a few words."""
        width = "the median distance" if self.bandwidth is None else f"{self.bandwidth:g}"
        return f"RBF kernel (bandwidth {width})"


class SimilarityToTraining:
    """A kernel between points and the training points.

    Args:
        kernel: it is copied, so that several learners may be given one; None: cosine.

    Example:
        >>> similarity = SimilarityToTraining()
        >>> similarity.fit(torch.eye(2))
        >>> [chunk.tolist() for chunk in similarity.chunks(torch.tensor([[2.0, 0.0]]))]
        [[[1.0, 0.0]]]
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        check_kind("kernel", kernel, Kernel, "CosineKernel()", optional=True)
        self.kernel: Kernel = copy.deepcopy(kernel) if kernel is not None else CosineKernel()
        self._training = torch.empty(0, 0)

    def fit(self, features: Tensor) -> None:
        """Keep the training points' features, shape (n, ...), any float dtype.

        Raises:
            UserError: they are not finite.
        """
        self._training = check_finite("features", features, remedy=_REMEDY)
        self.kernel.fit(features)

    def chunks(self, points: Tensor, rows: int | None = None) -> Iterator[Tensor]:
        """Similarities with all training points, in chunks (m', n), float64, of at most ``rows`` points and 64 MiB.

        Args:
            points: shape (m, ...), like the training points.
            rows: m' at most; None: as many as fit.
        """
        fitting = rows_per_chunk(len(self._training))
        for chunk in torch.split(points, fitting if rows is None else min(rows, fitting)):
            yield self.kernel.matrix(chunk, self._training)


# --- the neural tangent kernel ----------------------------------------------------------------------------------------


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
