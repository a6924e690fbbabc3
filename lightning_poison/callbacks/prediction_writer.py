"""Predictions as a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
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

    It reads what ``predict_step`` returns: class probabilities, shape (N, K). On several ranks rank zero writes the
    rows of all, each sample once. Where several runs share a log folder, the file is in the run's own report folder.

    Attributes:
        path: of the file that was written last; None on the other ranks, and before there is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path: Path | None = None
        self._rows: list[tuple[int, int, float]] = []

    def on_predict_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget an earlier run."""
        self._rows = []

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch's predictions."""
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise UserError("predict_step must return class probabilities of shape (N, K) for predictions.csv")
        # Lightning deals the samples of ``predict`` to the ranks in turn, without repeats.
        positions = (len(self._rows) + torch.arange(len(outputs))) * trainer.world_size + trainer.global_rank
        probability, prediction = outputs.float().max(dim=1)
        rows = zip(positions.tolist(), prediction.tolist(), probability.tolist(), strict=True)
        self._rows += list(rows)

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Gather, sort and write."""
        rows = [row for share in from_all_ranks(trainer, lambda: self._rows) for row in share]
        from_rank_zero(trainer, lambda: self._write(trainer, rows))

    def _write(self, trainer: Any, rows: list[tuple[int, int, float]]) -> None:
        path = run_file(trainer, _FILE)
        if path is None:
            return
        text = io.StringIO()
        text.write("index,prediction,probability\n")
        text.writelines(f"{index},{prediction},{probability:.6f}\n" for index, prediction, probability in sorted(rows))
        self.path = write_atomically(path, text.getvalue())
