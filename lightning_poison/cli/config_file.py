"""The config that a run was made with, saved once the run has really begun."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.cli import SaveConfigCallback

__all__ = ["SaveConfig"]


class SaveConfig(SaveConfigCallback):
    """Saves ``LOG_DIR/config.yaml`` when the first loop starts.

    Lightning's own callback saves during ``setup``, before the data are known to be good, and leaves a folder behind
    when they are not.
    """

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing yet."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Save before the first training step."""
        self._save(trainer, pl_module, "fit")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Save before ``validate``; the sanity check is no run yet."""
        if trainer.state.fn == "validate":
            self._save(trainer, pl_module, "validate")

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Save before ``test``."""
        self._save(trainer, pl_module, "test")

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Save before ``predict``."""
        self._save(trainer, pl_module, "predict")

    def _save(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if trainer.log_dir is not None:
            super().setup(trainer, pl_module, stage)
