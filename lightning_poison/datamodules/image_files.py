"""Images that are decoded when they are needed, and which files are images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lightning_poison.datamodules.image_decoding import read_image
from lightning_poison.datamodules.image_tensors import augmented
from lightning_poison.errors import UserError
from lightning_poison.functional.progress import show_progress

__all__ = ["ImageFiles", "class_folders", "identical_files", "list_images", "visible_folders"]

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
_SAMPLE = 4096
_CHUNK = 1 << 20
_READERS = 16
_SHOWN = 5


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


def visible_folders(folder: Path) -> list[str]:
    """The sorted names of the sub-folders, linked ones too, without hidden ones and what systems leave behind.

    Raises:
        UserError: the folder is missing, is a file or cannot be read, or a link in it leads nowhere.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; unpack it, and name the folder of the images: --data.root DIR")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; --data.root DIR names the folder of the images")
    return [path.name for path, is_folder in _entries(folder) if is_folder]


def class_folders(folder: Path) -> list[str]:
    """The names of the sub-folders, one for each class, sorted.

    Raises:
        UserError: the folder is missing or has fewer than two.
    """
    names = visible_folders(folder)
    if len(names) < 2:
        found = f" ({names[0]}); if it holds the data, write --data.root {folder / names[0]}" if names else ""
        raise UserError(f"{folder} must hold a sub-folder for each of two or more classes, got {len(names)}{found}")
    return names


def list_images(folder: Path, class_names: tuple[str, ...], kept: Sequence[int]) -> list[tuple[str, int]]:
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
    strangers = set(visible_folders(folder)) - set(class_names)
    if strangers:
        raise UserError(f"{folder} has a class {min(strangers)!r} that is not among {_shortened(class_names)}")
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


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
