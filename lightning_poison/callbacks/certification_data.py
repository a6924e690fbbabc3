"""Training inputs and evaluation points as a certified learner reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from lightning_poison.trainer.batches import inputs_and_labels, sample_positions

__all__ = ["EvaluationPoints", "TrainingInputs"]

_BATCH = 1000


class TrainingInputs:
    """The inputs of the first ``count`` training points, batch by batch, as often as asked."""

    def __init__(self, loader: DataLoader[Any], count: int) -> None:
        self._loader = DataLoader(
            Subset(loader.dataset, range(count)),
            batch_size=_BATCH,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._loader:
            yield inputs_and_labels(batch)[0].cpu()


class EvaluationPoints:
    """The evaluation inputs of this rank, batch by batch; remembers which points they were."""

    def __init__(self, trainer: Any, loader: Any, max_batches: int, max_samples: int | None) -> None:
        self._trainer, self._loader, self._max_batches = trainer, loader, max_batches
        self._limit = torch.iinfo(torch.int64).max if max_samples is None else max_samples
        self._index, self._labels = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]

    def __iter__(self) -> Iterator[Tensor]:
        seen = 0
        for batch_idx, batch in enumerate(self._loader):
            inputs, labels = inputs_and_labels(batch)
            index = sample_positions(self._trainer, batch_idx, 0, len(labels), first=seen)
            seen += len(labels)
            kept = (index >= 0) & (index < self._limit)
            if kept.any():
                self._index.append(index[kept])
                self._labels.append(labels.cpu()[kept].long())
                yield inputs.cpu()[kept]
            if batch_idx + 1 >= self._max_batches or int(index.max()) + 1 >= self._limit:
                return

    def index_and_labels(self) -> tuple[Tensor, Tensor]:
        """Positions and clean labels of the points read so far, int64."""
        return torch.cat(self._index), torch.cat(self._labels)
