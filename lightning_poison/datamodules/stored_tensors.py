"""Labelled inputs that fit into memory: as tensors, as images of bytes, and without their labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ImageTensors", "Inputs", "StoredTensors", "augmented"]

_BYTE = 255
_OVERSHOOT = 0.3  # what a bicubic resize adds at an edge: 0.28 at most, with antialiasing


class StoredTensors(Dataset[tuple[Tensor, int]]):
    """Items are (input, label); how an input comes out of its storage is a subclass's :meth:`_decoded`.

    Args:
        data: shape (n, ...), as stored.
        targets: shape (n,), int64.
        transform: augmentation of one decoded input.
    """

    def __init__(self, data: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.data = data
        self.targets = targets
        self.transform = transform

    def __len__(self) -> int:
        """Number of points."""
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One input, float32, and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several items at once, decoded together."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        inputs = [self._transformed(one) for one in self._decoded(self.data[chosen]).unbind()]
        return list(zip(inputs, self.targets[chosen].tolist(), strict=True))

    def keep(self, index: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> Self:
        """The points at ``index`` under the given labels.

        Args:
            index: shape (m,), int64.
            targets: shape (m,), int64.
            transform: augmentation of the new data set.
        """
        kept = copy.copy(self)
        kept.data, kept.targets, kept.transform = self.data[index], targets, transform
        return kept

    def _decoded(self, stored: Tensor) -> Tensor:
        """Rows of ``data`` as float32 inputs, (m, ...)."""
        return stored

    def _transformed(self, decoded: Tensor) -> Tensor:
        """One decoded input after its augmentation."""
        return decoded if self.transform is None else self.transform(decoded)


class ImageTensors(StoredTensors):
    """Items are (pixels in [0, 1], label); storage is 8-bit.

    Args:
        data: shape (n, C, H, W), uint8.
        targets: shape (n,), int64.
        scale: the value of ``data`` that is white.
        transform: augmentation of one image, from and to a float tensor (C, H, W) in [0, 1].

    Raises:
        UserError: the data are no bytes, or some are above ``scale``.

    Example:
        >>> images = ImageTensors(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), torch.tensor([3, 5]))
        >>> images[1][0].max().item(), images[1][1]
        (1.0, 5)
    """

    def __init__(
        self, data: Tensor, targets: Tensor, scale: int = 255, transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(data, targets, transform)
        self.scale = check_integer("scale", scale, minimum=1)
        if data.dtype != torch.uint8:
            raise UserError(f"data must be 8-bit images (uint8), got {data.dtype}; use a TensorDataset for floats")
        if scale < _BYTE and data.numel() and int(data.max()) > scale:
            raise UserError(f"data must be at most scale={scale}, which is white, got {int(data.max())}; raise scale")

    def _decoded(self, stored: Tensor) -> Tensor:
        return stored.to(torch.float32) / self.scale

    def _transformed(self, decoded: Tensor) -> Tensor:
        return augmented(decoded, self.transform)


def augmented(image: Tensor, transform: Callable[[Tensor], Tensor] | None) -> Tensor:
    """An image after its augmentation, still in [0, 1]: what a resize overshoots at edges (up to 0.3) is cut off.

    Args:
        image: shape (C, H, W), float32, in [0, 1].
        transform: gives a float tensor; None: the image is left as it is.

    Raises:
        UserError: the transform gives something else, or pixels further outside of [0, 1].

    Example:
        >>> augmented(torch.tensor([[[0.5, 1.0]]]), lambda image: 1.25 * image)
        tensor([[[0.6250, 1.0000]]])
    """
    if transform is None:
        return image
    moved = transform(image)
    if not isinstance(moved, Tensor) or not moved.is_floating_point():
        got = f"a tensor of {moved.dtype}" if isinstance(moved, Tensor) else type(moved).__name__
        raise UserError(f"train_transform must give a float tensor (C, H, W) in [0, 1], got {got}; end it with ToDtype")
    low, high = (float(bound) for bound in torch.aminmax(moved)) if moved.numel() else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return moved
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # NaN fails too
        raise UserError(
            f"train_transform must give pixels in [0, 1], got [{low:.4g}, {high:.4g}]; make a normalisation the "
            "model's first layer, and end other transforms with torch.nn.Hardtanh(0, 1)"
        )
    return moved.clamp(0, 1)


class Inputs(Dataset[Tensor]):
    """The inputs of a data set, without labels: what is predicted.

    Example:
        >>> Inputs([(0.5, 1), (0.25, 0)])[1]
        0.25
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        """One input."""
        return self.dataset[index][0]  # type: ignore[no-any-return]  # a data set's items are Any
