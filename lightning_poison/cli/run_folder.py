"""A run's folder: loggers share it, one run has it, its config stands in it, and a refused run leaves none."""

from __future__ import annotations

import importlib.util
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

__all__ = ["SaveConfig", "claim_folder", "discard_unbegun", "loggers_for"]

_WRITTEN_BEFORE = ("events.out.tfevents.*", "hparams.yaml", "report/flips.csv")


def loggers_for(root: str | Path, version: int | None = None) -> list[Logger]:
    """CSV always, TensorBoard where it is installed; both write into one folder, ``ROOT/VERSION``.

    Args:
        root: the folder that holds the runs.
        version: number of the run's folder, ``version_0``, ``version_1``, ...; None: the next one that is free.
    """
    csv = CSVLogger(str(root), name="", version=version)
    loggers: list[Logger] = [csv]
    if importlib.util.find_spec("tensorboard") is not None:
        # The CSV logger's folder is the run's: asking it for its number fixes that number for both.
        loggers.append(TensorBoardLogger(str(root), name="", version=csv.version, default_hp_metric=False))
    return loggers


def claim_folder(trainer: Any, root: str | Path) -> None:
    """Make the folder of a run whose loggers are :func:`loggers_for`, under the next number if it is taken by now.

    Two runs that start at the same moment find the same free number; only one of them can make the folder.

    Args:
        trainer: its loggers are exchanged where the number changes.
        root: the folder that holds the runs.
    """
    first = trainer.loggers[0].version
    for version in count(first):
        folder = Path(root) / f"version_{version}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        if version != first:
            trainer.loggers = loggers_for(root, version)
        return


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


def discard_unbegun(trainer: Any, keep: Path) -> None:
    """Remove the run's folder if it holds nothing but what loggers and the data module write before.

    A run that has begun has written its ``config.yaml``, and keeps everything.

    Args:
        trainer: of the run that failed.
        keep: folder that existed before; empty ones between it and the run's are removed too.
    """
    for logger in trainer.loggers if getattr(rank_zero_only, "rank", 0) == 0 else []:
        if not isinstance(logger.log_dir, str):
            continue
        folder = Path(logger.log_dir).absolute()
        if not folder.is_dir() or keep not in folder.parents:
            continue
        files = [path for path in folder.rglob("*") if path.is_file()]
        if all(any(path.match(pattern) for pattern in _WRITTEN_BEFORE) for path in files):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # not empty: other runs are in there
                for parent in folder.parents:
                    if parent == keep:
                        break
                    parent.rmdir()
