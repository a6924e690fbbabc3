"""Images in folders, one for each class."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_poison.datamodules.image_files import ImageFiles, class_folders, list_images
from lightning_poison.datamodules.split_data import SplitDataModule, Transform
from lightning_poison.datamodules.splits import check_share, random_parts
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer

__all__ = ["ImageFolder"]


class ImageFolder(SplitDataModule):
    """Images in ``ROOT/train/CLASS/...`` with ``ROOT/val`` and ``ROOT/test`` beside it, or in ``ROOT/CLASS/...``.

    Where there is no ``test`` folder, ``test_split`` of the images are the test set, the same ones whatever the seed;
    where there is no ``val`` folder, ``val_split`` of the training images are held out. An image is held out or not by
    its name and content, whatever class it lies in. Classes are the sorted names of the folders. Images are resized to
    squares.

    Args:
        root: folder of the images.
        image_size: side of the square, in pixels.
        grayscale: one channel instead of three.
        classes: the classes to keep (numbers in the sorted order), renumbered 0, 1, ...; None: all.
        max_samples: number of training points, drawn at random with ``seed``; None: all.
        val_split: training points held out for validation: how many (an integer) or which share (a float below 1).
        test_split: images held out for testing, likewise.
        batch_size: of every loader.
        num_workers: worker processes of each loader.
        seed: of the validation split.
        train_transform: augmentation of one training image, a float tensor (C, H, W) in [0, 1].

    Raises:
        UserError: the folder or a class is missing or empty, or an argument is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        grayscale: bool = False,
        classes: list[int] | None = None,
        max_samples: int | None = None,
        val_split: float = 0.1,
        test_split: float = 0.1,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        train_transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.image_size = check_integer("image_size", image_size, minimum=1)
        self.grayscale = grayscale
        self.test_split = check_share("test_split", test_split)
        self.all_class_names = tuple(class_folders(self._train_folder))
        shape = (1 if grayscale else 3, image_size, image_size)
        super().__init__(
            self.all_class_names,
            shape,
            classes,
            max_samples,
            val_split,
            batch_size,
            num_workers,
            seed,
            train_transform,
        )

    def load_training(self) -> ImageFiles:
        """The training folder, less the test images where they have no folder of their own."""
        return self._images(self._train_folder) if self._has("test") else self._split(test=False)

    def load_validation(self) -> ImageFiles | None:
        """The validation folder, if there is one."""
        return self._images(self.root / "val") if self._has("val") else None

    def load_test(self) -> ImageFiles:
        """The test folder, or the images split off."""
        return self._images(self.root / "test") if self._has("test") else self._split(test=True)

    @property
    def _train_folder(self) -> Path:
        return self.root / "train" if self._has("train") else self.root

    def _has(self, part: str) -> bool:
        return (self.root / "train").is_dir() and (self.root / part).is_dir()

    def _images(self, folder: Path) -> ImageFiles:
        return ImageFiles(list_images(folder, self.all_class_names), self.image_size, self.grayscale)

    def _split(self, test: bool) -> ImageFiles:
        images = self._images(self._train_folder)
        keys = images.point_keys(torch.arange(len(images)))
        rest, held_out = random_parts(len(images), self.test_split, max_samples=None, seed=0, keys=keys)
        index = held_out if test else rest
        if not len(index):
            raise UserError(f"{self.root} has no folder test and test_split is {self.test_split}; give one of them")
        return images.keep(index, images.targets[index])
