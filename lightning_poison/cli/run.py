"""Run a command; a user's mistake is one line and exit code 2, ours a traceback."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence

from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from lightning_poison.cli.wording import checkpoint_line, is_raised_by_parser, one_line
from lightning_poison.errors import UserError

__all__ = ["run"]

_INTERRUPTED = 130  # what a shell reports of a command that was ended by Ctrl-C
_GOES_ON = {
    "fit": "; the same command with --ckpt_path last goes on after the last whole epoch",
    "experiment": "; the same command goes on after the runs that are finished",
}
_UNWRITABLE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR)
)


def run(arguments: Sequence[str]) -> int:
    """Parse, build and run.

    Args:
        arguments: as typed after the program's name.

    Returns:
        the exit code.
    """
    _hush()
    try:
        if arguments[0] == "experiment":
            from lightning_poison.cli.experiment import run_experiment

            run_experiment(arguments[1:])
        else:
            from lightning_poison.cli.app import PoisonCLI

            PoisonCLI(arguments)
    except (KeyboardInterrupt, SystemExit) as stop:
        # The Trainer turns an interrupt into an exit.
        if not isinstance(stop, KeyboardInterrupt) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        print(f"lightning-poison: interrupted{_GOES_ON.get(arguments[0], '')}", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        line = _line(error, arguments)
        if line is None:
            raise
        print(f"lightning-poison: error: {line}", file=sys.stderr)
        return 2
    return 0


def _line(error: Exception, arguments: Sequence[str]) -> str | None:
    """What to tell a user whose mistake this is; None: it is ours."""
    if isinstance(error, InterpolationKeyError):
        hint = " (an interpolation works in a config file, not on the command line)"
        return one_line(str(error).partition("\n")[0]) + (hint if "${" in "".join(arguments) else "")
    if isinstance(error, (UserError, MisconfigurationException, OmegaConfBaseException)):
        return one_line(_own_words(error))
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return f"cannot write {error.filename}: {error.strerror}; choose a folder that you may write to"
    if isinstance(error, ValueError) and "ckpt_path=" in str(error):  # a word for a checkpoint, and there is none
        return one_line(str(error))
    if isinstance(error, (ArgumentError, TypeError, ValueError)) and is_raised_by_parser(error):
        return one_line(str(error), (), arguments)
    return checkpoint_line(error) if isinstance(error, RuntimeError) else None


def _own_words(error: Exception) -> str:
    """The message, without the traceback that a DataLoader's worker puts before it."""
    text = str(error)
    if not text.startswith(f"Caught {type(error).__name__} in DataLoader worker"):
        return text
    return text.rstrip().rpartition(f"{type(error).__name__}: ")[2]


def _hush() -> None:
    """Silence what a user of this command can do nothing about."""
    for package in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(f"{package}.utilities.rank_zero").addFilter(_no_advertisement)
    for pattern in (
        ".*args parameter is intended to run from within Python.*",
        ".*does not have many workers.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The dirpath has changed from .*",
        ".*Total length of `list` across ranks is zero.*",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", pattern)


def _no_advertisement(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    advertised = any(product in message for product in ("litlogger", "litmodels"))
    return not advertised and not message.startswith(("GPU available: False", "TPU available: False"))
