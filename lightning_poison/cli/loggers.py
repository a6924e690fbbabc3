"""CSV always; TensorBoard beside it where it is installed."""

from __future__ import annotations

import importlib.util
from itertools import count
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

__all__ = ["claim_folder", "loggers_for"]


def loggers_for(root: str | Path, version: int | None = None) -> list[Logger]:
    """Loggers that write into one folder, ``ROOT/VERSION``.

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
