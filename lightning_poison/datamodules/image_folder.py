"""Images in folders, one for each class."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_poison.datamodules.image_files import (
    ImageFiles,
    class_folders,
    identical_files,
    list_images,
    visible_folders,
)
from lightning_poison.datamodules.split_data import SplitDataModule, Transform
from lightning_poison.datamodules.splits import PointsOrShare, check_share, random_parts
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer

__all__ = ["ImageFolder"]

_SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class ImageFolder(SplitDataModule):
    """Images in ``ROOT/train/CLASS/...`` with ``ROOT/val`` and ``ROOT/test`` beside it, or in ``ROOT/CLASS/...``.

    The folders of the parts may be called train or training; val, valid, validation or dev; test or testing, in any
    case. Where there is no test folder, ``test_split`` of the images are the test set, the same ones whatever the seed;
    where there is no validation folder, ``val_split`` of the training images are held out. An image is held out or not
    by its name and content, whatever class it lies in. Files with the same content stay in one part when images are
    split, and there is a warning where folders of parts share them.

    Classes are the sorted names of the folders. Images are BMP, GIF, JPEG, PBM, PGM, PNG, PPM, TIFF and WebP files at
    any depth below them. Links are followed. Hidden files and folders, and what systems leave behind (``__MACOSX``,
    ``.ipynb_checkpoints``, ``@eaDir``), are no part of the data.

    Images are turned as their camera says, put on white where they are transparent, scaled to [0, 1] by their depth
    (8 bits; 16 bits of grey; floats in [0, 1]) and resized to squares. Of several pictures in one file (an animation,
    pages) the first one counts. What does not say which value is white is refused.

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
        UserError: the folder or a class is missing or empty, the folders can be read in two ways, or an argument is out
            of range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        grayscale: bool = False,
        classes: list[int] | None = None,
        max_samples: int | None = None,
        val_split: PointsOrShare = 0.1,
        test_split: PointsOrShare = 0.1,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        train_transform: Transform | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.image_size = check_integer("image_size", image_size, minimum=1)
        self.grayscale = grayscale
        self.test_split = check_share("test_split", test_split)
        self._folders = _folders_of_parts(self.root)
        self._listed: dict[str, ImageFiles] = {}
        self.all_class_names = tuple(class_folders(self._folders["train"]))
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
        return self._images("train") if "test" in self._folders else self._split[0]

    def load_validation(self) -> ImageFiles | None:
        """The validation folder, if there is one."""
        return self._held_apart("val", ("train",)) if "val" in self._folders else None

    def load_test(self) -> ImageFiles:
        """The test folder, or the images split off.

        Raises:
            UserError: there is no test folder, and no image is split off.
        """
        if "test" in self._folders:
            return self._held_apart("test", ("train", "val"))
        held_out = self._split[1]
        if not len(held_out):
            count = len(self._images("train"))
            raise UserError(
                f"{self.root} has no folder test and test_split is {self.test_split} of {count} images, "
                "so there is nothing to test on; give one of them"
            )
        return held_out

    def copies(self, data: Any, index: Tensor) -> list[list[int]]:
        """Files with the same content, among the images at ``index``."""
        groups: dict[int, list[int]] = defaultdict(list)
        for position, image in enumerate(index.tolist()):
            path = data.samples[image][0]
            if path in self._copied:
                groups[self._copied[path]].append(position)
        return [group for group in groups.values() if len(group) > 1]

    @cached_property
    def _copied(self) -> dict[str, int]:
        """The training images of which there are several, each with the number of its content."""
        images = self._images("train")
        groups = identical_files([path for path, _ in images.samples])
        if groups:
            first, second = (images.samples[position][0] for position in groups[0][:2])
            contrary = sum(len(set(images.targets[group].tolist())) > 1 for group in groups)
            rank_zero_warn(
                f"{sum(map(len, groups)) - len(groups)} of the {len(images)} images in {self._folders['train']} are "
                f"copies of others (identical files such as {first} and {second}; {contrary} are in several classes); "
                "copies of one image are held out together or not at all"
            )
        return {images.samples[position][0]: number for number, group in enumerate(groups) for position in group}

    def _images(self, part: str) -> ImageFiles:
        if part not in self._listed:
            samples = list_images(self._folders[part], self.all_class_names, self.classes)
            self._listed[part] = ImageFiles(samples, self.image_size, self.grayscale)
        return self._listed[part]

    @cached_property
    def _split(self) -> tuple[ImageFiles, ImageFiles]:
        """The images of a root without a test folder: what is left, and what is tested on."""
        images = self._images("train")
        together = self.copies(images, torch.arange(len(images))) if self.test_split else []
        keys = images.point_keys(torch.arange(len(images)))
        parts = random_parts(len(images), self.test_split, None, 0, "test_split", together, keys)
        rest, held_out = (images.keep(index, images.targets[index]) for index in parts)
        return rest, held_out

    def _held_apart(self, part: str, others: tuple[str, ...]) -> ImageFiles:
        """The images of a part; warns where other parts have them, too."""
        images = self._images(part)
        for other in others:
            if other not in self._folders:
                continue
            paths = [path for path, _ in images.samples + self._images(other).samples]
            shared = [group for group in identical_files(paths) if group[0] < len(images) <= group[-1]]
            if shared:
                count = sum(position < len(images) for group in shared for position in group)
                rank_zero_warn(
                    f"{count} of the {len(images)} images in {self._folders[part]} are in {self._folders[other]}, too "
                    f"(identical files such as {paths[shared[0][0]]} and {paths[shared[0][-1]]}), and what is measured "
                    "on them says little of new images; remove them from one of the folders"
                )
        return images


def _folders_of_parts(root: Path) -> dict[str, Path]:
    """The folders of the parts that are there, "train", "val" and "test"; a root of classes is its own "train".

    Raises:
        UserError: there is no root, or its folders can be read in two ways.
    """
    names = visible_folders(root)
    found = {part: [name for name in names if name.casefold() in known] for part, known in _SPELLINGS.items()}
    for part, same in found.items():
        if len(same) > 1:
            raise UserError(f"{root} must have one {part} folder, got {' and '.join(same)}; put them together")
    parts = {part: root / same[0] for part, same in found.items() if same}
    if not parts:
        return {"train": root}
    named = ", ".join(folder.name for folder in parts.values())
    others = [name for name in names if root / name not in parts.values()]
    remedy = f"move the folders of the training classes into {root / 'train'}, also if {named} is a class"
    if "train" not in parts:
        raise UserError(f"{root} must have a folder train beside {named}, got {_in_words(others)}; {remedy}")
    classes = set(visible_folders(parts["train"]))
    if others and (not classes or classes & set(others)):
        raise UserError(f"{root} must hold either parts or classes, got {named} beside {_in_words(others)}; {remedy}")
    unused = [name for name in others if any((root / name / label).is_dir() for label in classes)]
    if unused:
        rank_zero_warn(
            f"ImageFolder passes over {_in_words(unused)} in {root}, with the same classes as {parts['train'].name}; "
            "call a folder val or test if it is to be used"
        )
    return parts


def _in_words(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
