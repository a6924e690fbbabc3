"""The data of an experiment, as tensors that processes share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_poison.datamodules.labels import dataset_labels, fingerprint
from lightning_poison.datamodules.poisoned import call_with_stage
from lightning_poison.datamodules.poisoned_dataset import find_poisoned_dataset
from lightning_poison.datamodules.train_loader import check_train_loader
from lightning_poison.errors import UserError
from lightning_poison.experiments.description import tensor_digest
from lightning_poison.functional.checks import check_pixels, declared_classes
from lightning_poison.functional.progress import Progress, no_progress, show_progress
from lightning_poison.poisons import TrainingSet
from lightning_poison.poisons.reading import read_inputs
from lightning_poison.trainer.positions import EvaluationOrder, trained_positions

__all__ = ["Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """Training and test points.

    Pickled, its tensors are NumPy arrays, which joblib maps into the memory of other processes instead of copying them.

    Args:
        inputs: shape (n, ...), float32, in [0, 1].
        labels: shape (n,), int64: the clean labels.
        test_inputs: shape (m, ...), float32, in [0, 1].
        test_labels: shape (m,), int64.
        num_classes: K of the clean data.
        fingerprint: of the training data, as flip lists record it.
        digest: of every input and label.
    """

    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    num_classes: int
    fingerprint: str
    digest: str

    @classmethod
    def of(cls, datamodule: Any, progress: Progress = show_progress) -> Subject:
        """Read a data module: the training and test points that its loaders yield, in the order of their data sets.

        Random augmentation is drawn once and then stays: experiments train on fixed tensors.

        Args:
            datamodule: a LightningDataModule with a training and a test loader over data sets with indices.
            progress: shows how far the reading is.

        Raises:
            UserError: a loader is missing or streams, labels are flipped, or inputs are no tensors of one shape with
                values in [0, 1].
        """
        owner = type(datamodule).__name__
        datamodule.prepare_data()
        call_with_stage(datamodule.setup, "fit")
        loader = check_train_loader(datamodule.train_dataloader(), owner)
        clean = _part(loader.dataset, trained_positions(loader))
        poisoned = find_poisoned_dataset(clean)
        if poisoned is not None and len(poisoned.flips):
            raise UserError(f"data must be clean, got a poisoned {owner}; the flips are the strategies' business")
        labels = dataset_labels(clean, progress)
        num_classes = declared_classes(datamodule) or int(labels.max()) + 1
        inputs = read_inputs(clean, progress)
        call_with_stage(datamodule.setup, "test")
        held_out = _test_data(datamodule, owner)
        test_inputs, test_labels = read_inputs(held_out, progress, "test"), dataset_labels(held_out, progress, "test")
        inputs, test_inputs = check_pixels("training inputs", inputs), check_pixels("test inputs", test_inputs)
        if test_inputs.shape[1:] != inputs.shape[1:]:
            raise UserError(
                f"training and test inputs must have one shape, got {tuple(inputs.shape[1:])} and "
                f"{tuple(test_inputs.shape[1:])}; use the same transform for both"
            )
        whole = tensor_digest(inputs, labels, test_inputs, test_labels)
        return cls(inputs, labels, test_inputs, test_labels, num_classes, fingerprint(clean, labels), whole)

    def training_set(self, progress: Progress = no_progress) -> TrainingSet:
        """The training data as strategies see them, with nothing remembered yet but the inputs."""
        dataset = TensorDataset(self.inputs, self.labels)
        training_set = TrainingSet(self.labels, self.num_classes, self.fingerprint, dataset, progress=progress)
        training_set.remembered("inputs", lambda: self.inputs)
        return training_set

    @cached_property
    def _state(self) -> dict[str, Any]:
        """Always the same arrays, as joblib knows by identity what it has mapped already."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in state.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Tensors as arrays."""
        return self._state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrays as tensors of the same memory."""
        for name, value in state.items():
            object.__setattr__(self, name, torch.from_numpy(value) if isinstance(value, np.ndarray) else value)


def _test_data(datamodule: Any, owner: str) -> Any:
    loader = datamodule.test_dataloader()
    while isinstance(loader, (list, tuple)) and loader:
        loader = loader[0]
    if not isinstance(loader, DataLoader):
        got = "None" if loader is None else type(loader).__name__
        raise UserError(f"{owner}.test_dataloader must return a DataLoader, got {got}; victims are measured on it")
    order = EvaluationOrder(loader)
    return loader.dataset if order.support is None else _part(loader.dataset, order.support)


def _part(dataset: Any, positions: Tensor) -> Any:
    """The points at ``positions``; the data set itself where these are all."""
    return dataset if len(positions) == len(dataset) else Subset(dataset, positions.tolist())
