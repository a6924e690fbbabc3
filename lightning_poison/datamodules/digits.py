"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import torch

from lightning_poison.datamodules.split_data import PointsOrShare, SplitDataModule, Transform, random_parts
from lightning_poison.datamodules.stored_tensors import ImageTensors

__all__ = ["Digits"]

_TEST_POINTS = 360
_LEVELS = 16


class Digits(SplitDataModule):
    """scikit-learn's digits: 1,797 grey images of 8 x 8 pixels, ten classes; nothing is downloaded.

    360 images are always the test set, whatever the seed.

    Args:
        classes: the digits to keep, renumbered 0, 1, ... in the given order; None: all ten.
        max_samples: number of training points, drawn at random with ``seed``; None: all.
        val_split: training points held out for validation: how many (an integer) or which share (a float below 1).
        batch_size: of every loader.
        num_workers: worker processes of each loader.
        seed: of the split.
        train_transform: augmentation of one training image, a float tensor (1, 8, 8) in [0, 1].

    Raises:
        UserError: an argument is out of range.

    Example:
        >>> data = Digits(classes=[0, 1], batch_size=32)
        >>> inputs, labels = next(iter(data.val_dataloader()))
        >>> inputs.shape, data.num_classes
        (torch.Size([29, 1, 8, 8]), 2)
    """

    def __init__(
        self,
        classes: list[int] | None = None,
        max_samples: int | None = None,
        val_split: PointsOrShare = 0.1,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        train_transform: Transform | None = None,
    ) -> None:
        names = tuple(str(digit) for digit in range(10))
        super().__init__(
            names, (1, 8, 8), classes, max_samples, val_split, batch_size, num_workers, seed, train_transform
        )

    def load_training(self) -> ImageTensors:
        """All but the 360 test images."""
        return self._part(test=False)

    def load_test(self) -> ImageTensors:
        """The 360 test images."""
        return self._part(test=True)

    @staticmethod
    def _part(test: bool) -> ImageTensors:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        data = torch.from_numpy(images).to(torch.uint8).reshape(-1, 1, 8, 8)
        targets = torch.from_numpy(labels).to(torch.int64)
        parts = random_parts(len(targets), held_out=_TEST_POINTS, max_samples=None, seed=0)
        index = parts[1] if test else parts[0]
        return ImageTensors(data[index], targets[index], scale=_LEVELS)
