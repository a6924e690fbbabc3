"""Run a command; a user's mistake is one line and exit code 2, ours a traceback."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence

from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from lightning_poison.cli.wording import checkpoint_line, one_line
from lightning_poison.errors import UserError

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Parse, build and run.

    Args:
        arguments: as typed after the program's name.

    Returns:
        the exit code.
    """
    _hush()
    from lightning_poison.cli.app import PoisonCLI

    try:
        PoisonCLI(arguments)
    except InterpolationKeyError as error:
        typed = (
            " (an interpolation works in a config file, not on the command line)" if "${" in "".join(arguments) else ""
        )
        return _refuse(one_line(str(error).partition("\n")[0]) + typed)
    except (UserError, MisconfigurationException, OmegaConfBaseException) as error:
        return _refuse(one_line(str(error)))
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        return _refuse(f"cannot write {error.filename}: {error.strerror}; choose a folder that you may write to")
    except RuntimeError as error:
        line = checkpoint_line(error)
        if line is None:
            raise
        return _refuse(line)
    return 0


def _refuse(line: str) -> int:
    print(f"lightning-poison: error: {line}", file=sys.stderr)
    return 2


def _hush() -> None:
    """Silence what a user of this command can do nothing about."""
    for package in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(f"{package}.utilities.rank_zero").addFilter(_no_advertisement)
    for pattern in (
        ".*args parameter is intended to run from within Python.*",
        ".*does not have many workers.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", pattern)


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()
