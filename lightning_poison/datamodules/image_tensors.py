"""Images that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_poison.datamodules.stored_tensors import StoredTensors

__all__ = ["ImageTensors", "Inputs"]


class ImageTensors(StoredTensors):
    """Items are (pixels in [0, 1], label); storage is 8-bit.

    Args:
        data: shape (n, C, H, W), uint8.
        targets: shape (n,), int64.
        scale: the value of ``data`` that is white.
        transform: augmentation of one image, from and to a float tensor (C, H, W) in [0, 1].

    Example:
        >>> images = ImageTensors(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), torch.tensor([3, 5]))
        >>> images[1][0].max().item(), images[1][1]
        (1.0, 5)
    """

    def __init__(
        self, data: Tensor, targets: Tensor, scale: int = 255, transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(data, targets, transform)
        self.scale = scale

    def _decoded(self, stored: Tensor) -> Tensor:
        return stored.to(torch.float32) / self.scale


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
