"""The coordinates in which distances between training points are taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.features.base import PCAFeatures
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_kind
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network
from lightning_poison.poisons.surrogates.trained import penultimate_features
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["FeatureSpace", "InputSpace", "PCASpace", "Space"]

_CHUNK = 4096
_WIDEST = 10_000


class Space(ABC):
    """A rule that represents each training point by a vector.

    It is a frozen dataclass, so that it records itself in the flip list.
    """

    @abstractmethod
    def points(self, training_set: TrainingSet, seed: int) -> Tensor:
        """The vectors of all training points; they are shared: never change them in place.

        Args:
            training_set: the clean data.
            seed: of what is random, such as the training of a network.

        Returns:
            shape (n, d), float.
        """


@dataclass(frozen=True)
class InputSpace(Space):
    """The inputs themselves, flattened (section 6.1.1 of the thesis this package grew from).

    Example:
        >>> data = [(torch.zeros(1, 2, 2), 0), (torch.ones(1, 2, 2), 1)]
        >>> InputSpace().points(TrainingSet(torch.tensor([0, 1]), 2, dataset=data), seed=0)
        tensor([[0., 0., 0., 0.],
                [1., 1., 1., 1.]])
    """

    def points(self, training_set: TrainingSet, seed: int) -> Tensor:  # noqa: ARG002  # the signature is shared
        """Return the inputs, shape (n, d), float32."""
        return training_set.inputs.flatten(1)


@dataclass(frozen=True)
class PCASpace(Space):
    """The leading principal components of all training inputs, after centring (section 6.1.2 of the thesis).

    Args:
        dim: number of components; at most min(n, d) are kept.

    Raises:
        UserError: ``dim`` is no positive integer, or (when points are asked for) an input has too many numbers.

    Example:
        >>> data = [(torch.tensor([position, 0.0]), 0) for position in (0.0, 1.0, 5.0)]
        >>> PCASpace(dim=1).points(TrainingSet(torch.zeros(3, dtype=torch.int64), 2, dataset=data), seed=0).abs()
        tensor([[2.],
                [1.],
                [3.]], dtype=torch.float64)
    """

    dim: int = 50

    def __post_init__(self) -> None:
        check_integer_field(self, "dim", minimum=1)

    def points(self, training_set: TrainingSet, seed: int) -> Tensor:  # noqa: ARG002  # the signature is shared
        """Return the components, shape (n, ``dim``), float64; found once."""
        return training_set.remembered(self, lambda: self._components(training_set.inputs))

    def _components(self, inputs: Tensor) -> Tensor:
        width = inputs[0].numel()
        if width > _WIDEST:
            raise UserError(
                f"PCASpace takes inputs of at most {_WIDEST:,} numbers, got {width:,}; "
                "use FeatureSpace or smaller inputs"
            )
        batches = torch.split(inputs, _CHUNK)
        components = PCAFeatures(self.dim).fit(batches)
        return torch.cat([components.transform(batch) for batch in batches])


@dataclass(frozen=True)
class FeatureSpace(Space):
    """What the last layer of a trained network sees (section 6.1.3 of the thesis).

    Args:
        surrogate: the network; None: the one that came along with the data, else one that is trained now.

    Raises:
        UserError: ``surrogate`` is something else, or (when points are asked for) the network does not fit the data or
            does not end in a linear layer.
    """

    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)

    def points(self, training_set: TrainingSet, seed: int) -> Tensor:
        """Return the features, shape (n, d), float32; found once for each seed."""

        def features() -> Tensor:
            network = surrogate_network(self.surrogate, training_set, seed)
            return penultimate_features(network, training_set.inputs)

        return training_set.remembered((self, seed), features)
