"""What every data module of labelled inputs has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_poison._lightning import LightningDataModule
from lightning_poison.datamodules.image_tensors import Inputs
from lightning_poison.datamodules.splits import PointsOrShare, check_classes, check_share, of_classes, random_parts
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer

__all__ = ["LabelledInputs", "SplitDataModule", "Transform"]

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
        train_transform: augmentation of one training image, a float tensor (C, H, W) in [0, 1].

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
        """All training images under their original labels."""

    @abstractmethod
    def load_test(self) -> LabelledInputs:
        """All test images under their original labels."""

    def load_validation(self) -> LabelledInputs | None:
        """Validation images where the data come with some; None: they are split off the training images."""
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
        """Training images, shuffled and augmented."""
        return self._loader(self._training_parts()[0], shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out training images; no loader at all with ``val_split=0``."""
        held_out = self._training_parts()[1]
        return self._loader(held_out) if len(held_out) else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Test images."""
        return self._loader(self._test_part())

    def predict_dataloader(self) -> DataLoader[Any]:
        """Test images without their labels."""
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
            index, labels = of_classes(images.targets, self.classes)
            if not len(index):
                raise UserError(f"no test point is of the classes {', '.join(self.class_names)}; hold out more of them")
            self._test = images.keep(index, labels)
        return self._test

    def _of_kept_classes(self, images: LabelledInputs) -> tuple[Tensor, Tensor]:
        index, labels = of_classes(images.targets, self.classes)
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
