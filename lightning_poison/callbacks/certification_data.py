"""Training inputs and evaluation points as a certified learner reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from lightning_poison.datamodules.labels import known_labels
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import EvaluatedSamples, collation

__all__ = ["EvaluationPoints", "TrainingInputs"]

_BATCH = 1000


class TrainingInputs:
    """The inputs of some points of a training loader's data set, batch by batch, as often as asked.

    Args:
        loader: the training loader, whose collation is used.
        positions: of the points, shape (m,), int64.
    """

    def __init__(self, loader: DataLoader[Any], positions: Tensor) -> None:
        self._loader = DataLoader(
            Subset(loader.dataset, positions.tolist()),
            batch_size=_BATCH,
            num_workers=loader.num_workers,
            collate_fn=collation(loader),
        )

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._loader:
            yield inputs_and_labels(batch)[0].cpu()


class EvaluationPoints:
    """The evaluation inputs of this rank, batch by batch; remembers which points they were.

    Args:
        trainer: while it evaluates.
        loader: of the evaluation.
        max_batches: evaluated on each rank.
        max_samples: how many points are certified, drawn with a fixed seed; None: all.
    """

    def __init__(self, trainer: Any, loader: Any, max_batches: float, max_samples: int | None) -> None:
        self._trainer, self._loader, self._max_batches = trainer, loader, max_batches
        self._samples = EvaluatedSamples(trainer, max_samples, known_labels)
        self._index, self._labels = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]

    @property
    def known(self) -> bool:
        """Whether points are known by their position in the data set."""
        return self._samples.known

    def __iter__(self) -> Iterator[Tensor]:
        for number, batch in enumerate(self._loader, start=1):
            inputs, labels = inputs_and_labels(batch)
            index = self._samples.next(inputs, labels)
            kept = index >= 0
            if kept.any():
                self._index.append(index[kept])
                self._labels.append(labels.cpu()[kept].long())
                yield inputs.cpu()[kept]
            if number >= self._max_batches:
                return

    def index_and_labels(self) -> tuple[Tensor, Tensor]:
        """Positions and clean labels of the points read so far, int64."""
        return torch.cat(self._index), torch.cat(self._labels)

    def count_here(self) -> bool:
        """Whether this rank's points count; every rank must ask, when it has read all of its own."""
        return self._samples.count_here(self._trainer)
