"""Progress as whole lines, for pipes and log files."""

from __future__ import annotations

import sys
import time
from typing import Any

from pytorch_lightning.callbacks import ProgressBar

__all__ = ["LineProgress"]

_SHOWN = ("train/loss", "val/acc", "val/adv_acc", "poison/fitted")


class LineProgress(ProgressBar):
    """One line an epoch on standard error instead of a bar that redraws itself.

    Args:
        seconds_between_lines: within an epoch, how long to be silent at most.
    """

    def __init__(self, seconds_between_lines: float = 30.0) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._enabled = True
        self._started = self._last = 0.0
        self._first_epoch = 0
        self._before: dict[str, Any] = {}

    @property
    def is_disabled(self) -> bool:
        """Whether this rank is silent."""
        return not self._enabled

    def disable(self) -> None:
        """Be silent (Lightning calls this on every rank but zero)."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._started = self._last = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Speak within a long epoch."""
        if time.monotonic() - self._last > self.seconds_between_lines:
            self._say(trainer, trainer.current_epoch + 1, f"batch {batch_idx + 1}/{self.total_train_batches}")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Say what the epoch before brought: only now has everybody logged."""
        if trainer.current_epoch > self._first_epoch:
            self._say_epoch(trainer, trainer.current_epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Say what the last epoch brought."""
        if trainer.current_epoch > self._first_epoch:
            self._say_epoch(trainer, trainer.current_epoch, ended=True)

    def _say_epoch(self, trainer: Any, done: int, ended: bool = False) -> None:
        values = trainer.callback_metrics
        # A Trainer keeps the values of earlier epochs; one that was not measured anew is the same object.
        fresh = [key for key in _SHOWN if key in values and values[key] is not self._before.get(key)]
        self._before = dict(values)
        shown = "  ".join(f"{key} {float(values[key]):.4f}" for key in fresh)
        left = ""
        if trainer.max_epochs not in (None, -1) and not ended:
            elapsed = time.monotonic() - self._started
            seconds = elapsed / (done - self._first_epoch) * (trainer.max_epochs - done)
            left = f"  about {seconds:.0f} s left" if seconds >= 1 else ""
        self._say(trainer, done, shown + left)

    def _say(self, trainer: Any, epoch: int, text: str) -> None:
        self._last = time.monotonic()
        if self._enabled:
            of = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
            print(f"epoch {epoch}{of}  {text}", file=sys.stderr, flush=True)
