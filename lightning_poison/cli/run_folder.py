"""No trace of a run that was refused before it began."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

__all__ = ["discard_unbegun"]

_WRITTEN_BEFORE = ("events.out.tfevents.*", "hparams.yaml", "report/flips.csv")


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
