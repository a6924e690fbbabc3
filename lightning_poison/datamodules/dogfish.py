"""Dogs against fish, as published with the paper on influence functions."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_poison.datamodules.split_data import LabelledInputs, PointsOrShare, SplitDataModule, Vectors
from lightning_poison.datamodules.stored_tensors import ImageTensors
from lightning_poison.errors import UserError

__all__ = ["Dogfish"]

_FEATURES = ("inception_features_val", "labels")
_WHOLE = ("X_train", "Y_train", "X_test", "Y_test")
_BLOCK = 100


class Dogfish(SplitDataModule):
    """Dogs and fish of ImageNet (Koh and Liang, 2017): 1,800 training and 600 test points from the published files.

    Nothing is downloaded. ``root`` names a folder with either of

    - ``*dog*fish*train.npz`` and the same name with ``test``: arrays ``inception_features_val`` (n, 2048) and
      ``labels`` (n,), as written by Koh and Liang's scripts (``dogfish_900_300_inception_features_new_train.npz``);
    - one ``*dog*fish*.npz`` (``dataset_dog-fish_train-900_test-300.npz``), or is such a file itself: arrays
      ``X_train``, ``Y_train``, ``X_test``, ``Y_test``. Points are vectors (n, d), taken as they are, or images
      (n, H, W, 3) in [-1, 1], which become pixels (3, H, W) in [0, 1] (stored as the 8 bits that they were).

    Labels are 0 (dog) and 1 (fish); -1 and 1 are taken likewise. The Inception network of the features was trained on
    ImageNet, dogs and fish included: on its features a guarantee reaches the head only, unless you know better.

    Args:
        root: the folder or the file.
        max_samples: number of training points, drawn at random with ``seed``; None: all.
        val_split: training points held out for validation: how many (an integer) or which share (a float below 1).
        batch_size: of every loader.
        num_workers: worker processes of each loader.
        seed: of the split.

    Raises:
        UserError: the files are missing, damaged or hold something else.
    """

    def __init__(
        self,
        root: str = "data",
        max_samples: int | None = None,
        val_split: PointsOrShare = 0,
        batch_size: int = 100,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.root = str(root)
        self._parts = self._find()
        shape = _shape(*self._parts["train"][:2])
        super().__init__(("dog", "fish"), shape, None, max_samples, val_split, batch_size, num_workers, seed, None)

    def load_training(self) -> LabelledInputs:
        """The training points."""
        return self._load("train")

    def load_test(self) -> LabelledInputs:
        """The test points."""
        return self._load("test")

    def _load(self, part: str) -> LabelledInputs:
        path, points, labels = self._parts[part]
        return _points(path, points, _labels(path, labels))

    def _find(self) -> dict[str, tuple[Path, str, str]]:
        """For each part, the file and the names of its arrays."""
        root = Path(self.root).absolute()
        files = [root] if root.is_file() else sorted(root.glob("*dog*fish*.npz"))
        for path in files:
            names = _names(path)
            if set(_WHOLE) <= names:
                return {"train": (path, *_WHOLE[:2]), "test": (path, *_WHOLE[2:])}
            other = path.with_name(path.name.replace("train.npz", "test.npz"))
            if set(_FEATURES) <= names and other != path and other.is_file() and set(_FEATURES) <= _names(other):
                return {"train": (path, *_FEATURES), "test": (other, *_FEATURES)}
        raise UserError(
            f"Dogfish is not in {root}: *dog*fish*train.npz and *test.npz with {' and '.join(_FEATURES)}, or one "
            f"*dog*fish*.npz with {', '.join(_WHOLE)}; put the published files there or name them: --data.root PATH"
        )


def _names(path: Path) -> set[str]:
    with _opened(path) as stored:
        return set(stored.files)


def _opened(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} must be a NumPy archive, got a damaged file ({error}); download it again") from error


def _array(path: Path, name: str) -> np.ndarray:
    with _opened(path) as stored:
        try:
            array: np.ndarray = stored[name]
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} has no readable array {name} ({error}); download it again") from error
    return array


def _shape(path: Path, name: str) -> tuple[int, ...]:
    """Of one point as the model sees it, without reading the points."""
    with zipfile.ZipFile(path) as members, members.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read(stream)[0][1:]
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape


def _points(path: Path, name: str, targets: Tensor) -> Vectors | ImageTensors:
    """Vectors (n, d), or images (n, H, W, 3) in [-1, 1] as bytes (n, 3, H, W)."""
    array = _array(path, name)
    if array.ndim not in (2, 4) or array.dtype.kind not in "fiu" or len(array) != len(targets):
        got = f"shape {array.shape}, dtype {array.dtype}, {len(targets)} labels"
        raise UserError(f"{name} in {path} must be vectors (n, d) or images (n, H, W, 3) with a label each, got {got}")
    if array.ndim == 2:
        return Vectors(torch.from_numpy(array.astype(np.float32)), targets)
    lowest, highest = array.min(), array.max()
    if array.shape[3] != 3 or not (lowest >= -1 and highest <= 1):
        got = f"shape {array.shape} and values in [{lowest:g}, {highest:g}]"
        raise UserError(f"{name} in {path} must be images (n, H, W, 3) in [-1, 1], got {got}")
    pixels = torch.empty(len(array), 3, *array.shape[1:3], dtype=torch.uint8)
    for first in range(0, len(array), _BLOCK):  # the published array takes 4 GB
        block = torch.from_numpy(array[first : first + _BLOCK].astype(np.float32))
        pixels[first : first + _BLOCK] = ((block.permute(0, 3, 1, 2) + 1) * 127.5).round().to(torch.uint8)
    return ImageTensors(pixels, targets)


def _labels(path: Path, name: str) -> Tensor:
    array = _array(path, name).reshape(-1)
    values = set(np.unique(array).tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise UserError(f"{name} in {path} must be 0 and 1 (or -1 and 1), got {sorted(values)[:5]}")
    return torch.from_numpy((array > 0).astype(np.int64))
