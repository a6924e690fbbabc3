"""Where a run keeps its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["report_folder"]


def report_folder(trainer: Any) -> Path | None:
    """``LOG_DIR/report``, or None where the run keeps no files (``fast_dev_run``).

    Call it on every rank: the log folder is broadcast from rank zero.
    """
    log_dir = trainer.log_dir
    if trainer.fast_dev_run or log_dir is None:
        return None
    return Path(log_dir) / "report"
