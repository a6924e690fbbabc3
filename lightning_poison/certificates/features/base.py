"""What a feature map must promise before a label-flip certificate can be built on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_poison.certificates.guarantee import reach_of
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import kind_shown
from lightning_poison.functional.point_order import OwnOrder, PointsInOrder

__all__ = ["LabelFreeFeatures", "PointSource", "as_batches", "in_own_order"]

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


def as_batches(inputs: Batches) -> Iterable[Tensor]:
    """``inputs`` as an iterable of non-empty float batches (N, ...).

    Raises:
        UserError: there are no inputs, or they are not float.
    """
    seen = False
    for batch in all_batches(inputs):
        if not batch.is_floating_point():
            raise UserError(f"inputs must be float tensors, got dtype {batch.dtype}; convert pixels to [0, 1]")
        if len(batch) > 0:
            seen = True
            yield batch.detach()
    if not seen:
        raise UserError("inputs must hold at least one training point, got none; check the training data set")


def all_batches(inputs: Batches) -> Iterable[Tensor]:
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
