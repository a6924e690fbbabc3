"""What every data module of labelled inputs has in common: splits, loaders, checks.

Which points are trained on, held out or left out is drawn here, and nowhere else.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_poison._lightning import LightningDataModule
from lightning_poison.datamodules.stored_tensors import Inputs, StoredTensors
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_integer, as_list, check_integer, check_number, kind_shown
from lightning_poison.functional.random_streams import generator, mix_seed

__all__ = [
    "LabelledInputs",
    "PointsOrShare",
    "SplitDataModule",
    "Transform",
    "Vectors",
    "check_classes",
    "check_share",
    "random_parts",
]

PointsOrShare: TypeAlias = int | float
"""How many points (an integer) or which share of them (a float below 1); as float alone, 1 would be read as 1.0."""
Transform = Callable[[Any], Any]


class LabelledInputs(Protocol):
    """A map-style data set of (float32 input, int label) that can be cut down; images have pixels in [0, 1]."""

    targets: Tensor

    def keep(self, index: Tensor, targets: Tensor, transform: Transform | None = None) -> LabelledInputs:
        """The inputs at ``index`` under the given labels."""
        ...


class SplitDataModule(LightningDataModule, ABC):
    """Labelled inputs, a seeded validation split, and loaders.

    From the training data the given classes are kept, then ``val_split`` points are held out at random, then at most
    ``max_samples`` of the rest are kept at random. The seed of the split travels in the checkpoint.

    Args:
        all_class_names: the classes of the data, before ``classes`` picks some.
        input_shape: (C, H, W), or (d,) where the points are vectors.
        classes: the classes to keep, renumbered 0, 1, ... in the given order; None: all.
        max_samples: number of training points; None: all.
        val_split: training points held out for validation: how many (an integer) or which share (a float below 1).
        batch_size: of every loader.
        num_workers: worker processes of each loader.
        seed: of the split.
        train_transform: augmentation of one training input, such as an image, a float tensor (C, H, W) in [0, 1].

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        all_class_names: tuple[str, ...],
        input_shape: tuple[int, ...],
        classes: list[int] | None,
        max_samples: int | None,
        val_split: PointsOrShare,
        batch_size: int,
        num_workers: int,
        seed: int,
        train_transform: Transform | None,
    ) -> None:
        super().__init__()
        self.classes = check_classes(classes, len(all_class_names))
        self.class_names = [all_class_names[label] for label in self.classes]
        self.input_shape = input_shape
        if max_samples is not None:
            max_samples = check_integer("max_samples", max_samples, minimum=1, remedy="null means all training points")
        self.max_samples = max_samples
        self.val_split = check_share("val_split", val_split)
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.num_workers = check_integer("num_workers", num_workers, minimum=0)
        self.seed = check_integer("seed", seed, minimum=0)
        self.train_transform = train_transform
        self._training: tuple[Any, Any] | None = None
        self._test: Any = None

    @abstractmethod
    def load_training(self) -> LabelledInputs:
        """All training inputs under their original labels."""

    @abstractmethod
    def load_test(self) -> LabelledInputs:
        """All test inputs under their original labels."""

    def load_validation(self) -> LabelledInputs | None:
        """Validation inputs where the data come with some; None: they are split off the training inputs."""
        return None

    def copies(self, data: LabelledInputs, index: Tensor) -> list[list[int]]:  # noqa: ARG002  # for overriders
        """Which of the points at ``index`` must stay in one part: positions in it of inputs that are copies."""
        return []

    @property
    def num_classes(self) -> int:
        """Number of classes kept."""
        return len(self.classes)

    def setup(self, stage: str | None = None) -> None:
        """Load what the stage needs, or all where none is named; a second call finds it there.

        Raises:
            UserError: the data do not fit the arguments, or nothing is held out to validate or test on.
        """
        if stage in ("fit", "validate", None):
            held_out = self._training_parts()[1]
            if stage == "validate" and not len(held_out):
                raise UserError(
                    f"val_split is {self.val_split}, so there is nothing to validate on; set val_split, or use test"
                )
        if stage not in ("fit", "validate"):
            self._test_part()

    def train_dataloader(self) -> DataLoader[Any]:
        """Training inputs, shuffled and augmented."""
        return self._loader(self._training_parts()[0], shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out training inputs; no loader at all with ``val_split=0``."""
        held_out = self._training_parts()[1]
        return self._loader(held_out) if len(held_out) else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Test inputs."""
        return self._loader(self._test_part())

    def predict_dataloader(self) -> DataLoader[Any]:
        """Test inputs without their labels."""
        return self._loader(Inputs(self._test_part()))

    def state_dict(self) -> dict[str, Any]:
        """The seed of the split."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the split of the run that is resumed."""
        if int(state_dict["seed"]) != self.seed:
            self.seed = int(state_dict["seed"])
            self._training = None

    def _training_parts(self) -> tuple[Any, Any]:
        if self._training is None:
            images = self.load_training()
            index, labels = self._of_kept_classes(images)
            given = self.load_validation()
            held_out = self.val_split if given is None else 0
            together = self.copies(images, index) if held_out else []
            keys = images.point_keys(index) if hasattr(images, "point_keys") else None
            parts = random_parts(len(index), held_out, self.max_samples, self.seed, together=together, keys=keys)
            train, val = parts
            validation = images.keep(index[val], labels[val])
            if given is not None:
                validation = given.keep(*self._of_kept_classes(given))
            self._training = images.keep(index[train], labels[train], self.train_transform), validation
        return self._training

    def _test_part(self) -> Any:
        if self._test is None:
            images = self.load_test()
            # Few images split off at random may lack a class, and what is there can still be measured.
            index, labels = _of_classes(images.targets, self.classes)
            if not len(index):
                raise UserError(f"no test point is of the classes {', '.join(self.class_names)}; hold out more of them")
            self._test = images.keep(index, labels)
        return self._test

    def _of_kept_classes(self, images: LabelledInputs) -> tuple[Tensor, Tensor]:
        index, labels = _of_classes(images.targets, self.classes)
        absent = set(range(self.num_classes)) - set(labels.tolist())
        if absent:
            raise UserError(f"class {self.class_names[min(absent)]!r} has no images; leave it out of classes")
        return index, labels

    def _loader(self, dataset: Any, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class Vectors(StoredTensors):
    """Items are (vector, label).

    Args:
        data: shape (n, d), float32.
        targets: shape (n,), int64.
        transform: augmentation of one vector.

    Example:
        >>> import torch
        >>> vectors = Vectors(torch.eye(2), torch.tensor([1, 0]))
        >>> vectors[1][0].tolist(), vectors[1][1], len(vectors)
        ([0.0, 1.0], 0, 2)
    """


# --- splits -----------------------------------------------------------------------------------------------------------


def check_classes(classes: list[int] | None, num_classes: int) -> list[int]:
    """The classes to keep, in the order that gives their new numbers.

    Raises:
        UserError: fewer than two, a repeated one, or one out of range.

    Example:
        >>> check_classes([7, 1], num_classes=10), check_classes(None, num_classes=3)
        ([7, 1], [0, 1, 2])
    """
    if classes is None:
        return list(range(num_classes))
    given = as_list(classes)
    if given is None:
        raise UserError(f"classes must be a list such as [0, 1], got {kind_shown(classes)}; null means every class")
    checked: list[int] = []
    for label in given:
        number = as_integer(label)
        if number is None or not 0 <= number < num_classes:
            raise UserError(f"classes must be integers in [0, {num_classes - 1}], got {label!r} in {given}")
        checked.append(number)
    if len(set(checked)) < len(checked) or len(checked) < 2:
        raise UserError(f"classes must name at least two different classes, got {checked}")
    return checked


def check_share(name: str, value: PointsOrShare) -> int | float:
    """A number of points (an integer) or their share (a float in [0, 1)).

    Raises:
        UserError: it is neither.

    Example:
        >>> check_share("val_split", 5000.0), check_share("val_split", 0.1)
        (5000, 0.1)
    """
    value = value.item() if isinstance(value, np.number) else value
    remedy = "an integer counts points, a float below 1 is a share of them"
    if isinstance(value, float) and value.is_integer() and value != 1:
        value = int(value)  # the command line reads 5000 as 5000.0
    if isinstance(value, bool) or as_integer(value) is not None:
        return check_integer(name, value, minimum=0, remedy=remedy)  # type: ignore[arg-type]  # no float
    return check_number(name, value, minimum=0, maximum=0.999999, remedy=remedy)


def _of_classes(labels: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """The points of the given classes and their renumbered labels.

    Args:
        labels: shape (n,), int64.
        classes: the i-th of them becomes label i.

    Returns:
        index, shape (m,), int64, increasing; labels, shape (m,), int64, in [0, len(classes) - 1].

    Example:
        >>> _of_classes(torch.tensor([7, 3, 1, 7]), [1, 7])
        (tensor([0, 2, 3]), tensor([1, 0, 1]))
    """
    numbers = torch.full((max(int(labels.max()), *classes) + 1,), -1)
    numbers[torch.tensor(classes)] = torch.arange(len(classes))
    renumbered = numbers[labels]
    index = (renumbered >= 0).nonzero().squeeze(1)
    return index, renumbered[index]


def random_parts(
    n: int,
    held_out: float,
    max_samples: int | None,
    seed: int,
    name: str = "val_split",
    together: Sequence[Sequence[int]] = (),
    keys: Sequence[bytes] | None = None,
) -> tuple[Tensor, Tensor]:
    """Hold out points at random, and keep at most ``max_samples`` of the rest, drawn at random too.

    A smaller ``max_samples`` keeps a part of what a larger one keeps.

    Args:
        n: number of points.
        held_out: how many of them, or which share, to hold out.
        max_samples: None: all of the rest.
        seed: of the draw.
        name: of the argument that ``held_out`` was given as.
        together: points of which either all are held out or none, such as copies of each other; fewer points than
            asked for are held out where the count cannot be met.
        keys: what tells the n points apart; a point is then drawn wherever it stands. None: its position does.

    Returns:
        training points and held-out points, int64, each increasing.

    Raises:
        UserError: nothing would be left for training, or ``max_samples`` exceeds the rest.

    Example:
        >>> [len(part) for part in random_parts(100, held_out=0.1, max_samples=50, seed=0)]
        [50, 10]
    """
    count = held_out if isinstance(held_out, int) else int(held_out * n + 0.5)
    if count >= n:
        raise UserError(
            f"{name} must leave points for training, got {held_out} and there are {n}; lower {name}, "
            "an integer counts points, a float below 1 is a share of them"
        )
    order = torch.randperm(n, generator=generator(seed, "split")) if keys is None else _shuffled(keys, seed)
    chosen = _drawn(order, count, together)
    rest = order[~chosen]
    if max_samples is not None and max_samples > len(rest):
        raise UserError(
            f"max_samples must be at most the {len(rest)} training points, got {max_samples}; null means all of them"
        )
    return rest[:max_samples].sort().values, order[chosen].sort().values


def _drawn(order: Tensor, count: int, together: Sequence[Sequence[int]]) -> Tensor:
    """Which points of a random order are held out: the first ones, but whole groups only, as long as they fit."""
    if not together:
        return torch.arange(len(order)) < count
    companions = {point: group for group in together for point in group}
    held_out: set[int] = set()
    for point in order.tolist():
        group = companions.get(point, (point,))
        if point not in held_out and len(held_out) + len(group) <= count:
            held_out.update(group)
    return torch.tensor([point in held_out for point in order.tolist()], dtype=torch.bool)


def _shuffled(keys: Sequence[bytes], seed: int) -> Tensor:
    salt = mix_seed(seed, "split").to_bytes(8, "little")
    hashes = [hashlib.blake2b(key, digest_size=16, salt=salt).digest() for key in keys]
    return torch.tensor(sorted(range(len(keys)), key=hashes.__getitem__), dtype=torch.int64)
