"""Data sets that torchvision downloads."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch

from lightning_poison.datamodules.split_data import PointsOrShare, SplitDataModule, Transform
from lightning_poison.datamodules.stored_tensors import ImageTensors
from lightning_poison.errors import UserError

__all__ = ["CIFAR10", "MNIST", "FashionMNIST", "TorchvisionDataModule"]


class TorchvisionDataModule(SplitDataModule):
    """Base of the data modules over ``torchvision.datasets``; a subclass names the data set, its classes and shape.

    Args:
        root: folder with the data set's files, in torchvision's layout (``ROOT/MNIST/raw/...``); they are downloaded
            to it where they are missing.
        classes: the classes to keep, renumbered 0, 1, ... in the given order; None: all.
        max_samples: number of training points, drawn at random with ``seed``; None: all.
        val_split: training points held out for validation: how many (an integer) or which share (a float below 1).
        batch_size: of every loader.
        num_workers: worker processes of each loader.
        download: whether missing files may be downloaded.
        seed: of the split.
        train_transform: augmentation of one training image, a float tensor (C, H, W) in [0, 1].

    Raises:
        UserError: an argument is out of range.
    """

    all_class_names: ClassVar[tuple[str, ...]]
    shape: ClassVar[tuple[int, int, int]]

    def __init__(
        self,
        root: str = "data",
        classes: list[int] | None = None,
        max_samples: int | None = None,
        val_split: PointsOrShare = 5000,
        batch_size: int = 128,
        num_workers: int = 0,
        download: bool = True,
        seed: int = 0,
        train_transform: Transform | None = None,
    ) -> None:
        super().__init__(
            self.all_class_names,
            self.shape,
            classes,
            max_samples,
            val_split,
            batch_size,
            num_workers,
            seed,
            train_transform,
        )
        self.root = str(root)
        self.download = download

    @property
    @abstractmethod
    def dataset_name(self) -> str:
        """Name of the class in ``torchvision.datasets``."""

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process only.

        Raises:
            UserError: files are missing and cannot be downloaded, or are damaged.
        """
        if self._stored(train=False) is not None:
            return
        if not self.download:
            raise UserError(self._missing(" and download is false"))
        import torchvision.datasets

        existed = Path(self.root).exists()
        try:
            getattr(torchvision.datasets, self.dataset_name)(self.root, download=True)
        except (RuntimeError, OSError, EOFError) as error:
            if not existed:
                _remove_empty(Path(self.root))
            raise UserError(self._missing(f" and could not be downloaded ({_line(error, -1)})")) from error

    def load_training(self) -> ImageTensors:
        """The training images as torchvision ships them."""
        return self._load(train=True)

    def load_test(self) -> ImageTensors:
        """The test images as torchvision ships them."""
        return self._load(train=False)

    def _load(self, train: bool) -> ImageTensors:
        stored = self._stored(train)
        if stored is None:
            raise UserError(self._missing(""))
        data = torch.as_tensor(stored.data)
        data = data.unsqueeze(1) if data.ndim == 3 else data.permute(0, 3, 1, 2).contiguous()
        return ImageTensors(data, torch.as_tensor(stored.targets, dtype=torch.int64))

    def _stored(self, train: bool) -> Any:
        """Torchvision's data set, or None where its files are absent."""
        import torchvision.datasets

        try:
            return getattr(torchvision.datasets, self.dataset_name)(self.root, train=train, download=False)
        except (RuntimeError, OSError, EOFError, AssertionError, ValueError) as error:
            if "not found" in str(error):  # torchvision says so of absent files, and of nothing else
                return None
            raise UserError(
                f"the files of {self.dataset_name} in {self._folder} are damaged ({_line(error, 0)}); "
                "remove them and download again"
            ) from error

    @property
    def _folder(self) -> Path:
        return Path(self.root).absolute()

    def _missing(self, why: str) -> str:
        where = f"{self.dataset_name} is not in {self._folder}"
        return f"{where}{why}; put the files there or name their folder: --data.root DIR"


class MNIST(TorchvisionDataModule):
    """Handwritten digits: 60,000 + 10,000 grey images of 28 x 28 pixels, ten classes.

    Example:
        >>> data = MNIST(classes=[1, 7])
        >>> data.num_classes, data.class_names, data.input_shape
        (2, ['1', '7'], (1, 28, 28))
    """

    dataset_name = "MNIST"
    all_class_names = tuple(str(digit) for digit in range(10))
    shape = (1, 28, 28)


class FashionMNIST(TorchvisionDataModule):
    """Articles of clothing: 60,000 + 10,000 grey images of 28 x 28 pixels, ten classes.

    Example:
        >>> FashionMNIST(classes=[0, 6]).class_names
        ['T-shirt/top', 'shirt']
    """

    dataset_name = "FashionMNIST"
    all_class_names = (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    shape = (1, 28, 28)


class CIFAR10(TorchvisionDataModule):
    """Animals and vehicles: 50,000 + 10,000 colour images of 32 x 32 pixels, ten classes.

    Example:
        >>> CIFAR10().input_shape
        (3, 32, 32)
    """

    dataset_name = "CIFAR10"
    all_class_names = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    shape = (3, 32, 32)


def _line(error: Exception, which: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[which].strip("<>:.") if lines else type(error).__name__


def _remove_empty(root: Path) -> None:
    for folder in sorted(root.glob("**"), reverse=True):
        with suppress(OSError):  # not empty: something was downloaded
            folder.rmdir()
