"""Predictions as a file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lightning_poison._lightning import Callback
from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically
from lightning_poison.trainer.folders import run_file
from lightning_poison.trainer.ranks import from_all_ranks, from_rank_zero

__all__ = ["PredictionWriter"]

_FILE = "predictions.csv"


class PredictionWriter(Callback):
    """Writes ``LOG_DIR/predictions.csv`` at the end of ``predict``: index, prediction, probability.

    It reads what ``predict_step`` returns: class probabilities, shape (N, K). ``index`` is the sample's position in the
    data set, whatever order the loader reads it in, and empty where nobody knows it (a stream). Of several loaders
    their number stands before it, in a column ``loader``. On several ranks rank zero writes the rows of all, each
    sample once. Where several runs share a log folder, the file is in the run's own report folder.

    Attributes:
        path: of the file that was written last; None on the other ranks, and before there is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path: Path | None = None
        self._rows: list[_Row] = []

    def on_predict_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget an earlier run."""
        self._rows = []

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch's predictions."""
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise UserError("predict_step must return class probabilities of shape (N, K) for predictions.csv")
        index = _positions(trainer.predict_dataloaders, batch_idx, dataloader_idx, len(outputs))
        probability, prediction = outputs.float().max(dim=1)
        first = len(self._rows)
        self._rows += [
            _Row(dataloader_idx, position, first + row, trainer.global_rank, *told)
            for row, (position, *told) in enumerate(zip(index, prediction.tolist(), probability.tolist(), strict=True))
        ]

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Gather, sort and write."""
        rows = sorted(row for share in from_all_ranks(trainer, lambda: self._rows) for row in share)
        from_rank_zero(trainer, lambda: self._write(trainer, rows))

    def _write(self, trainer: Any, rows: list[_Row]) -> None:
        path = run_file(trainer, _FILE)
        if path is None:
            return
        several = len({row.loader for row in rows}) > 1
        text = io.StringIO()
        text.write(f"{'loader,' if several else ''}index,prediction,probability\n")
        for row in rows:
            index = "" if row.position < 0 else row.position
            loader = f"{row.loader}," if several else ""
            text.write(f"{loader}{index},{row.prediction},{row.probability:.6f}\n")
        self.path = write_atomically(path, text.getvalue())


class _Row(NamedTuple):
    """A sample, in the order of the file: by position, those without one as they were read."""

    loader: int
    position: int
    place: int
    rank: int
    prediction: int
    probability: float


def _positions(loaders: Any, batch_idx: int, dataloader_idx: int, size: int) -> list[int]:
    """Where the samples of a batch stand in their data set; -1 where nobody knows.

    Lightning notes which positions the batch sampler of each ``predict`` loader has yielded.
    """
    found = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    loader = found[dataloader_idx] if isinstance(found, (list, tuple)) else found
    seen = getattr(getattr(loader, "batch_sampler", None), "seen_batch_indices", [])
    batch = [int(position) for position in seen[batch_idx]] if batch_idx < len(seen) else []
    return batch if len(batch) == size else [-1] * size
