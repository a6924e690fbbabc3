"""Images that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ImageTensors", "Inputs"]


class ImageTensors(Dataset[tuple[Tensor, int]]):
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
        self.data = data
        self.targets = targets
        self.scale = scale
        self.transform = transform

    def __len__(self) -> int:
        """Number of images."""
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image, float32 (C, H, W), and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several items at once, converted together."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        images = list((self.data[chosen].to(torch.float32) / self.scale).unbind())
        if self.transform is not None:
            images = [self.transform(image) for image in images]
        return list(zip(images, self.targets[chosen].tolist(), strict=True))

    def keep(self, index: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> ImageTensors:
        """The images at ``index`` under the given labels.

        Args:
            index: shape (m,), int64.
            targets: shape (m,), int64.
            transform: augmentation of the new data set.
        """
        return ImageTensors(self.data[index], targets, self.scale, transform)


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
