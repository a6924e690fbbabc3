"""Images that are decoded when they are needed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from lightning_poison.errors import UserError

__all__ = ["ImageFiles", "class_folders", "list_images"]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Items are (pixels in [0, 1], label), read from files and resized to squares.

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
            UserError: the file cannot be decoded; the message names it.
        """
        path, label = self.samples[index]
        try:
            with Image.open(path) as file:
                picture = file.convert("L" if self.grayscale else "RGB")
                picture = picture.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
            raise UserError(f"cannot read the image {path} ({error}); repair or remove the file") from error
        pixels = torch.from_numpy(np.array(picture)).to(torch.float32) / 255
        image = pixels.unsqueeze(0) if self.grayscale else pixels.permute(2, 0, 1).contiguous()
        return (image if self.transform is None else self.transform(image)), label

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


def class_folders(folder: Path) -> list[str]:
    """The names of the sub-folders, one for each class, sorted.

    Raises:
        UserError: the folder is missing or has fewer than two.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; --data.root DIR names the folder of the images")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"{folder} must hold a sub-folder for each of two or more classes, got {len(names)}")
    return names


def list_images(folder: Path, class_names: tuple[str, ...]) -> list[tuple[str, int]]:
    """(path, label) of every image below the class folders, sorted within each class.

    Raises:
        UserError: a class folder is missing or holds no image, or there is a class that training data lacks.
    """
    strangers = set(class_folders(folder)) - set(class_names)
    if strangers:
        raise UserError(f"{folder} has a class {min(strangers)!r} that is not among {', '.join(class_names)}")
    samples: list[tuple[str, int]] = []
    for label, name in enumerate(class_names):
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not files:
            raise UserError(f"the class folder {folder / name} holds no image; add images or remove the folder")
        samples += [(str(path), label) for path in files]
    return samples
