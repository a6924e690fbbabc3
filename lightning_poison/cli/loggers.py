"""CSV always; TensorBoard beside it where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

__all__ = ["loggers_for"]


def loggers_for(root: str | Path, version: str | None = None) -> list[Logger]:
    """Loggers that write into one folder, ``ROOT/VERSION``.

    Args:
        root: the folder that holds the runs.
        version: name of the run's folder; None: ``version_0``, ``version_1``, ... whichever is free.
    """
    csv = CSVLogger(str(root), name="", version=version)
    loggers: list[Logger] = [csv]
    if importlib.util.find_spec("tensorboard") is not None:
        # The CSV logger's folder is the run's: asking it for its number fixes that number for both.
        loggers.append(TensorBoardLogger(str(root), name="", version=csv.version, default_hp_metric=False))
    return loggers
