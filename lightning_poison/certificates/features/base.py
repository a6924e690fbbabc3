"""Feature maps that see no label: what they promise, and the plain ones."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lightning_poison.certificates.guarantee import reach_of
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, kind_shown
from lightning_poison.functional.point_order import OwnOrder, PointsInOrder
from lightning_poison.functional.scale import unit_of

__all__ = [
    "Batches",
    "FrozenFeatures",
    "LabelFreeFeatures",
    "PCAFeatures",
    "PointSource",
    "RawFeatures",
    "UnchangedInputs",
    "as_batches",
    "check_as_many",
    "in_own_order",
    "spread_inputs",
]

Batches = Tensor | Iterable[Tensor]


class LabelFreeFeatures(ABC):
    """A feature map that is built from inputs alone.

    ``fit`` sees the training inputs and no label, so flipped labels cannot move the features, and a certificate for a
    learner on top of them is end to end. A subclass whose map may depend on labels sets ``end_to_end`` to False, and
    every guarantee then says so.

    Attributes:
        end_to_end: whether no (possibly flipped) training label went into the map.
    """

    end_to_end: bool = True

    def fit(self, inputs: Batches) -> LabelFreeFeatures:
        """Learn what the map needs from training inputs.

        Args:
            inputs: shape (n, ...), or batches of such, read once.

        Returns:
            the fitted map itself.
        """
        for _ in as_batches(inputs):
            break
        return self

    @abstractmethod
    def transform(self, inputs: Tensor) -> Tensor:
        """The features of a batch.

        Args:
            inputs: shape (N, ...), float.

        Returns:
            shape (N, d), float.
        """

    @property
    def reach(self) -> str:
        """How far a guarantee on these features goes: "end-to-end" or "not end-to-end, the head only"."""
        return reach_of(self.end_to_end)

    def premises(self) -> tuple[str, ...]:
        """What somebody else must see to so that no certified label is in the map, each as it follows "as long as"."""
        return ()

    @abstractmethod
    def describe(self) -> str:
        """The map in a few words, such as "raw inputs"."""


# --- plain feature maps -----------------------------------------------------------------------------------------------


class RawFeatures(LabelFreeFeatures):
    """Inputs flattened to one vector a point, (N, d); ``UnchangedInputs`` leaves them in their shape.

    Example:
        >>> RawFeatures().transform(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def transform(self, inputs: Tensor) -> Tensor:
        """Flatten (N, ...) to (N, d)."""
        return inputs.flatten(1)

    def describe(self) -> str:
        """The map in a few words."""
        return "raw inputs"


class UnchangedInputs(LabelFreeFeatures):
    """Inputs in their own shape, for learners that are networks; ``RawFeatures`` flattens them to vectors.

    Example:
        >>> UnchangedInputs().transform(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    def transform(self, inputs: Tensor) -> Tensor:
        """(N, ...) as they are."""
        return inputs

    def describe(self) -> str:
        """The map in a few words."""
        return "unchanged inputs"


class PCAFeatures(LabelFreeFeatures):
    """The ``dim`` leading principal components of the training inputs, after centring.

    The covariance is summed in float64 batch by batch, so memory is d x d and does not grow with the number of points.

    Args:
        dim: number of components; at most min(n, d) are kept.

    Example:
        >>> line = torch.arange(4.0)[:, None] * torch.tensor([[1.0, 0.0]])
        >>> PCAFeatures(dim=1).fit(line).transform(line).abs().flatten().tolist()
        [1.5, 0.5, 0.5, 1.5]
    """

    def __init__(self, dim: int = 64) -> None:
        self.dim = check_integer("dim", dim, minimum=1)
        self._unit = 1.0
        self._mean: Tensor | None = None
        self._basis: Tensor | None = None

    def fit(self, inputs: Batches) -> PCAFeatures:
        """Find mean and components."""
        shift, count, total, second = None, 0, torch.zeros(()), torch.zeros(())
        for batch in as_batches(inputs):
            rows = check_finite("inputs", batch, remedy="clean them").flatten(1).double()
            self._unit = unit_of(rows, ordinary=0) if shift is None else self._unit
            rows = rows * self._unit
            shift = rows.mean(0) if shift is None else shift  # sums of squares around an early mean cancel less
            rows = rows - shift
            count, total, second = count + len(rows), total + rows.sum(0), second + rows.T @ rows
        mean = total / count
        covariance = second / count - torch.outer(mean, mean)
        if not torch.isfinite(covariance).all():
            raise UserError("inputs must be of similar sizes, got some whose squares overflow; scale them down")
        self._mean = mean if shift is None else mean + shift
        self._basis = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : min(self.dim, count)]
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Project (N, ...) to (N, dim), float64."""
        if self._mean is None or self._basis is None:
            raise UserError("PCAFeatures must be fitted before transform, got no components; call fit(inputs) first")
        return ((inputs.flatten(1).double() * self._unit - self._mean) @ self._basis) / self._unit

    def describe(self) -> str:
        """The map in a few words."""
        return f"{self.dim} principal components of the training inputs"


class FrozenFeatures(LabelFreeFeatures):
    """The outputs of a frozen feature extractor.

    Args:
        extractor: maps inputs (N, ...) to (N, d) or (N, ...), which is flattened. ``fit`` takes a copy of it, so that
            training and evaluation points go through the same weights, whatever becomes of the original; the copy
            runs in eval mode, without gradients, on the CPU.
        label_free: promise that the extractor was trained without the labels that are certified: on other data, or
            without labels. Where that cannot be promised the guarantee covers the head alone, and says so.

    Example:
        >>> FrozenFeatures(nn.Linear(4, 2)).end_to_end
        False
    """

    def __init__(self, extractor: nn.Module, label_free: bool = False) -> None:
        self.extractor = extractor
        self.end_to_end = bool(label_free)
        self._copy: nn.Module | None = None

    def fit(self, inputs: Batches) -> FrozenFeatures:
        """Copy the extractor as it is now."""
        super().fit(inputs)
        try:
            self._copy = copy.deepcopy(self.extractor).cpu().eval()
        except RuntimeError as error:  # weights that are computed by a hook
            raise UserError(
                f"extractor must be a module that can be copied, got {type(self.extractor).__name__} ({error}); "
                "use torch.nn.utils.parametrizations for weights that are computed"
            ) from error
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Run the extractor on (N, ...)."""
        if self._copy is None:
            raise UserError("FrozenFeatures must be fitted before transform, got no copy; call fit(inputs) first")
        try:
            with torch.no_grad():
                features: Tensor = self._copy(inputs)
        except RuntimeError as error:
            raise UserError(
                f"extractor must take inputs of shape {tuple(inputs.shape)}, got {type(self._copy).__name__} "
                f"({str(error).partition(chr(10))[0]}); give it the size of the data"
            ) from error
        return features.flatten(1)

    def premises(self) -> tuple[str, ...]:
        """That the promise is kept."""
        return ("the frozen network was trained without these labels",) if self.end_to_end else ()

    def describe(self) -> str:
        """The map in a few words."""
        return f"a frozen {type(self.extractor).__name__}"


# --- inputs in batches ------------------------------------------------------------------------------------------------


def as_batches(inputs: Batches) -> Iterable[Tensor]:
    """``inputs`` as an iterable of non-empty float batches (N, ...).

    Raises:
        UserError: there are no inputs, or they are not float.
    """
    seen = False
    for batch in _all_batches(inputs):
        if not batch.is_floating_point():
            raise UserError(f"inputs must be float tensors, got dtype {batch.dtype}; convert pixels to [0, 1]")
        if len(batch) > 0:
            seen = True
            yield batch.detach()
    if not seen:
        raise UserError("inputs must hold at least one training point, got none; check the training data set")


def _all_batches(inputs: Batches) -> Iterable[Tensor]:
    """``inputs`` as an iterable of tensors, whatever dtype and size; NumPy arrays are taken, too.

    Raises:
        UserError: they are something else.
    """
    if not isinstance(inputs, (Tensor, np.ndarray, Iterable)):
        raise UserError(f"inputs must be a tensor or batches of tensors, got {kind_shown(inputs)}; stack the points")
    for batch in [inputs] if isinstance(inputs, (Tensor, np.ndarray)) else inputs:
        if not isinstance(batch, (Tensor, np.ndarray)):
            raise UserError(f"inputs must be a tensor or batches of tensors, got {kind_shown(batch)}; stack the points")
        yield torch.as_tensor(batch)


def check_as_many(count: int, labels: Tensor) -> None:
    """Refuse inputs that are not as many as the labels, shape (n,).

    Raises:
        UserError: they are not.
    """
    if count != len(labels):
        raise UserError(f"inputs must match the labels, got {count} inputs for {len(labels)} labels")


def spread_inputs(inputs: Batches, count: int) -> Tensor:
    """At least ``count`` and less than twice as many inputs, evenly spread over all; every one if there are fewer.

    Data that are sorted by class give every class its share. The number of inputs need not be known beforehand: the
    stride doubles whenever too many are kept.

    Example:
        >>> spread_inputs([torch.arange(10.0), torch.arange(10.0, 16.0)], 4)
        tensor([ 0.,  4.,  8., 12.])
    """
    kept, stride, seen = torch.empty(0), 1, 0
    for batch in as_batches(inputs):
        chosen = batch[(-seen) % stride :: stride]
        seen += len(batch)
        kept = torch.cat([kept.to(batch.dtype), chosen]) if len(kept) else chosen
        while len(kept) >= 2 * count:
            kept, stride = kept[::2], 2 * stride
    return kept


class PointSource(Protocol):
    """Training inputs that do not fit into memory, and can be read in any order."""

    def in_own_order(self, labels: Tensor, advance: Callable[[int], object]) -> tuple[Iterable[Tensor], OwnOrder]:
        """As :func:`in_own_order`."""
        ...


def in_own_order(
    inputs: Batches | PointSource, labels: Tensor, advance: Callable[[int], object] = lambda _: None
) -> tuple[Iterable[Tensor], OwnOrder]:
    """Training inputs in an order that no label decides, so that a feature map may look at the order.

    Args:
        inputs: shape (n, ...), or batches of such, which are kept in memory; or a source of its own order.
        labels: shape (n,), integers: the training labels. They order equal inputs, among which the order is all the
            same to a feature map.
        advance: called with the number of points read, batch by batch.

    Returns:
        the inputs in batches, as often as asked; and their order.

    Raises:
        UserError: there are no inputs, they are not float, or not as many as labels.

    Example:
        >>> batches, own = in_own_order(torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([1, 0, 0]))
        >>> sorted(own.order.tolist()), len(torch.cat(list(batches)))
        ([0, 1, 2], 3)
    """
    if hasattr(inputs, "in_own_order"):
        return inputs.in_own_order(labels, advance)
    batches = list(as_batches(inputs))
    points = batches[0] if len(batches) == 1 else torch.cat(batches)
    check_as_many(len(points), labels)
    own = OwnOrder.of(points, labels)
    advance(len(points))
    return PointsInOrder(points, own.order), own
