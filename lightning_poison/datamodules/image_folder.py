"""Images in folders, one for each class: the data module, and which files count."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lightning_poison.datamodules.image_decoding import read_image
from lightning_poison.datamodules.split_data import PointsOrShare, SplitDataModule, Transform, check_share, random_parts
from lightning_poison.datamodules.stored_tensors import augmented
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.progress import show_progress

__all__ = ["ImageFiles", "ImageFolder", "identical_files"]

_SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
_UNREAD = frozenset(
    (".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".nef", ".nii")
) | {".pfm", ".psd", ".svg", ".tga"}
# What archives, file servers and operating systems leave among the data; hidden names are left out as well.
_LITTER = frozenset(
    ("__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information")
)
_SAMPLE = 4096  # bytes by which most files are told apart
_CHUNK = 1 << 20  # bytes of a file in memory at once
_READERS = 16  # threads


# --- the data module --------------------------------------------------------------------------------------------------


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
        self.all_class_names = tuple(_class_folders(self._folders["train"]))
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
            samples = _list_images(self._folders[part], self.all_class_names, self.classes)
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


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Items are (pixels in [0, 1], label), read from files and resized to squares, see :func:`read_image`.

    Args:
        samples: (path, label) of each image.
        image_size: side of the square, in pixels.
        grayscale: one channel instead of three.
        transform: augmentation of one image, from and to a float tensor (C, H, W) in [0, 1].
    """

    def __init__(
        self,
        samples: list[tuple[str, int]],
        image_size: int,
        grayscale: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.samples = samples
        self.targets = torch.tensor([label for _, label in samples], dtype=torch.int64)
        self.image_size = image_size
        self.grayscale = grayscale
        self.transform = transform

    def __len__(self) -> int:
        """Number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image, float32 (C, H, W), and its label.

        Raises:
            UserError: the file cannot be read as an image, or the transform leaves [0, 1].
        """
        path, label = self.samples[index]
        return augmented(read_image(path, self.image_size, self.grayscale), self.transform), label

    def point_keys(self, index: Tensor) -> list[bytes]:
        """What tells the images at ``index`` apart wherever they lie: name and size, and the content where these agree.

        A file that is moved to the folder of another class keeps its key.
        """
        paths = [Path(path) for path, _ in self.samples]
        names = [f"{path.name} {path.stat().st_size}".encode() for path in paths]
        shared = Counter(names)
        return [
            names[row] + (hashlib.sha256(paths[row].read_bytes()).digest() if shared[names[row]] > 1 else b"")
            for row in index.tolist()
        ]

    def keep(self, index: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> ImageFiles:
        """The images at ``index`` under the given labels."""
        chosen = zip(index.tolist(), targets.tolist(), strict=True)
        samples = [(self.samples[position][0], label) for position, label in chosen]
        return ImageFiles(samples, self.image_size, self.grayscale, transform)


# --- folders ----------------------------------------------------------------------------------------------------------


def _folders_of_parts(root: Path) -> dict[str, Path]:
    """The folders of the parts that are there, "train", "val" and "test"; a root of classes is its own "train".

    Raises:
        UserError: there is no root, or its folders can be read in two ways.
    """
    names = _visible_folders(root)
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
        raise UserError(f"{root} must have a folder train beside {named}, got {_shortened(others)}; {remedy}")
    classes = set(_visible_folders(parts["train"]))
    if others and (not classes or classes & set(others)):
        raise UserError(f"{root} must hold either parts or classes, got {named} beside {_shortened(others)}; {remedy}")
    unused = [name for name in others if any((root / name / label).is_dir() for label in classes)]
    if unused:
        rank_zero_warn(
            f"ImageFolder passes over {_shortened(unused)} in {root}, with the same classes as {parts['train'].name}; "
            "call a folder val or test if it is to be used"
        )
    return parts


def _class_folders(folder: Path) -> list[str]:
    """The names of the sub-folders, one for each class, sorted.

    Raises:
        UserError: the folder is missing or has fewer than two.
    """
    names = _visible_folders(folder)
    if len(names) < 2:
        found = f" ({names[0]}); if it holds the data, write --data.root {folder / names[0]}" if names else ""
        raise UserError(f"{folder} must hold a sub-folder for each of two or more classes, got {len(names)}{found}")
    return names


def _visible_folders(folder: Path) -> list[str]:
    """The sorted names of the sub-folders, linked ones too, without hidden ones and what systems leave behind.

    Raises:
        UserError: the folder is missing, is a file or cannot be read, or a link in it leads nowhere.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; unpack it, and name the folder of the images: --data.root DIR")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; --data.root DIR names the folder of the images")
    return [path.name for path, is_folder in _entries(folder) if is_folder]


def _list_images(folder: Path, class_names: tuple[str, ...], kept: Sequence[int]) -> list[tuple[str, int]]:
    """(path, label) of every image below the class folders at any depth, sorted within each class.

    Links are followed, and what is linked in a circle is read once. Warns of pictures that are passed over: those
    beside the class folders, and those in formats that are not read.

    Args:
        folder: holds the class folders.
        class_names: the name of each class, which is that of its folder.
        kept: the classes that must have an image.

    Raises:
        UserError: a class that must have an image has none, there is a class that training data lacks, or a class
            folder is itself split into training and test data.
    """
    strangers = set(_visible_folders(folder)) - set(class_names)
    if strangers:
        raise UserError(f"{folder} has a class {min(strangers)!r} that is not among {_shortened(class_names, 5)}")
    samples: list[tuple[str, int]] = []
    beside = [path for path, is_folder in _entries(folder) if not is_folder and _is_image(path)]
    passed_over = Counter({"beside the class folders": len(beside)} if beside else {})
    for label, name in enumerate(class_names):
        files = list(_files(folder / name)) if (folder / name).is_dir() else []
        images = sorted(path for path in files if _is_image(path))
        unread = Counter(path.suffix.lower() for path in files if path.suffix.lower() in _UNREAD)
        if label in kept and not images:
            raise UserError(_no_image(folder / name, unread))
        passed_over += unread
        samples += [(str(path), label) for path in images]
    if passed_over:
        listed = ", ".join(f"{count} {what}" for what, count in sorted(passed_over.items()))
        rank_zero_warn(
            f"ImageFolder passes over {passed_over.total()} images in {folder} ({listed}); "
            "move them into a class folder, as PNG or JPEG, if they belong to the data"
        )
    return samples


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """(path, whether it is a folder) of what lies in a folder, sorted, without hidden names and litter."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({error.strerror}); see that you may") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name.casefold() in _LITTER:
            continue
        if entry.is_symlink() and not Path(entry.path).exists():
            raise UserError(f"{entry.path} is a link that leads nowhere; mend or remove it")
        yield folder / entry.name, entry.is_dir()


def _files(folder: Path) -> Iterator[Path]:
    """The files below a class folder, through links; no folder twice, and none that the class folder lies in."""
    above = [folder.resolve(), *folder.resolve().parents]
    inside = [path.name.casefold() for path, is_folder in _entries(folder) if is_folder]
    if {"train", "training"} & set(inside) and {"test", "testing"} & set(inside):
        raise UserError(
            f"the class folder {folder} is split into {' and '.join(inside)}; put the split above the classes, "
            f"as in train/{folder.name} and test/{folder.name}"
        )
    return _walk(folder, {_identity(path) for path in above})


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    for path, is_folder in _entries(folder):
        if not is_folder:
            yield path
        elif _identity(path) not in seen:
            seen.add(_identity(path))
            yield from _walk(path, seen)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _no_image(folder: Path, unread: Counter[str]) -> str:
    if not folder.is_dir():
        return f"{folder.parent} has no folder {folder.name!r}, which is a class of the training data; add its images"
    if unread:
        return f"the class folder {folder} holds no image that is read, only {', '.join(unread)}; save them as PNG"
    return f"the class folder {folder} holds no image; add images or remove the folder"


def _shortened(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are.

    Example:
        >>> _shortened(["a", "b", "c", "d"]), _shortened([])
        ('a, b, c and 1 more', 'none')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


# --- copies -----------------------------------------------------------------------------------------------------------


def identical_files(paths: Sequence[str]) -> list[list[int]]:
    """Which files are copies: the positions of those with the same content, two or more each.

    Most files are told apart by their size or a few of their bytes; the rest are read as a whole.

    Raises:
        UserError: a file cannot be read.

    Example:
        >>> for name, content in (("a", "1"), ("b", "2"), ("c", "1")):
        ...     _ = Path(name).write_text(content)
        >>> identical_files(["a", "b", "c"])
        [[0, 2]]
    """
    groups = [list(range(len(paths)))]
    for key in (_size, _sampled_bytes, _digest):
        groups = _refined(groups, paths, key)
    return groups


def _refined(groups: list[list[int]], paths: Sequence[str], key: Callable[[str], Hashable]) -> list[list[int]]:
    """The groups, each divided by the key of its files, without what then stands alone."""
    members = [(number, position) for number, group in enumerate(groups) for position in group]
    finer: dict[Hashable, list[int]] = defaultdict(list)
    with (
        show_progress("looking for copies of images", len(members)) as advance,
        ThreadPoolExecutor(_READERS) as readers,  # they wait for the disk or the network
    ):
        keys = readers.map(key, [paths[position] for _, position in members])
        try:
            for (number, position), value in zip(members, keys, strict=True):
                finer[number, value].append(position)
                advance(1)
        except OSError as error:
            raise UserError(
                f"cannot read the image {error.filename} ({error.strerror}); see that it is there and may be read"
            ) from error
    return [group for group in finer.values() if len(group) > 1]


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _sampled_bytes(path: str) -> bytes:
    middle = (_size(path) - _SAMPLE) // 2
    with Path(path).open("rb") as file:
        file.seek(max(0, middle))
        return file.read(_SAMPLE)


def _digest(path: str) -> bytes:
    digest = hashlib.blake2b()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
