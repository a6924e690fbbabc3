"""Where a run keeps its files: in a folder that no other run writes into.

A logger that numbers its runs (``CSVLogger``, ``TensorBoardLogger``) gives each a folder, and the files go there. Other
loggers, and a Trainer without one, share a folder among their runs: there every run gets a report folder of its own.
Only rank zero knows and writes; nothing here waits for other ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakSet

from pytorch_lightning.utilities import rank_zero_warn

from lightning_poison.errors import UserError
from lightning_poison.trainer.runs import Run, run_of

__all__ = ["log_folder", "note_run", "planned_report_folder", "recall_run", "report_folder", "run_file"]

_MARK = ".run"  # file that names the run that a folder belongs to
_KEY = "lightning_poison_run"


def report_folder(trainer: Any) -> Path | None:
    """The run's report folder, to write into now; None where this process writes none.

    ``LOG_DIR/report`` where the logger gives each run a folder. Otherwise ``report``, or ``report_1``, ``report_2``,
    ... where other runs have those; they stand where Lightning keeps checkpoints: below the logger's ``save_dir``
    (without one, ``default_root_dir``), its name and its version, as far as it has them. ``fit`` and a ``test`` after
    it with the same Trainer share one, and so does a run that goes on from a checkpoint of the first, where a callback
    has noted the run in it (:func:`note_run`). With ``ddp_spawn``, whose processes end with each call, every call
    counts as a run.

    Args:
        trainer: either Lightning's Trainer.

    Returns:
        None on the other ranks, under ``fast_dev_run``, and, with one warning, where the folder is not on this machine.

    Raises:
        UserError: the folder cannot be made.
    """
    return _folder(trainer, claim=True)


def planned_report_folder(trainer: Any) -> Path | None:
    """What :func:`report_folder` will be, as far as can be known by now; nothing is made."""
    return _folder(trainer, claim=False)


def run_file(trainer: Any, name: str) -> Path | None:
    """Where a file of the run stands that is no part of its report: ``LOG_DIR/NAME``.

    Where runs share a log folder, it is in the run's report folder.
    """
    folder = report_folder(trainer)
    if folder is None:
        return None
    return (folder.parent if _own_folder(trainer) is not None else folder) / name


def log_folder(trainer: Any) -> Path:
    """``trainer.log_dir`` as this rank knows it, without asking the others; where it is None, ``default_root_dir``."""
    own = _own_folder(trainer)
    return Path(own if own is not None else _save_dir(trainer))


def note_run(trainer: Any, checkpoint: MutableMapping[str, Any]) -> None:
    """Write into a checkpoint which run it is of; called in ``on_save_checkpoint``."""
    if trainer.is_global_zero and not trainer.fast_dev_run and _own_folder(trainer) is None:
        checkpoint[_KEY] = _name(run_of(trainer))


def recall_run(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Go on in the folder of the run that a checkpoint is of; called in ``on_load_checkpoint``."""
    run = run_of(trainer)
    if run.name is None and isinstance(name := checkpoint.get(_KEY), str):
        run.name = name


_warned: WeakSet[Any] = WeakSet()


def _folder(trainer: Any, claim: bool) -> Path | None:
    if trainer.fast_dev_run or not trainer.is_global_zero:
        return None
    own = _own_folder(trainer)
    base = own if own is not None else _shared_folder(trainer)
    if "://" in base:
        if trainer not in _warned:
            rank_zero_warn(
                f"lightning_poison writes no files: {base} is not on this machine; pass a local default_root_dir, or a "
                "logger with a local save_dir"
            )
        _warned.add(trainer)
        return None
    if own is not None:
        return Path(base) / "report"
    run = run_of(trainer)
    if run.folder is None:
        known = Path(base).glob("report*") if run.name is not None else ()
        mine = next((folder for folder in known if _owner(folder) == run.name), None)
        if mine is None and not claim:
            return _next_free(base)
        run.folder = mine if mine is not None else _claimed(base, run)
    return run.folder


def _next_free(base: str) -> Path:
    return next(folder for folder in _candidates(base) if not folder.exists())


def _owner(folder: Path) -> str | None:
    """The name of the run that a folder belongs to."""
    with suppress(OSError, ValueError):
        return (folder / _MARK).read_text(encoding="utf-8")
    return None


def _claimed(base: str, run: Run) -> Path:
    """A folder that was not there: of two runs that make it at the same moment only one succeeds."""
    for folder in _candidates(base):
        try:
            folder.mkdir(parents=True)
            (folder / _MARK).write_text(_name(run), encoding="utf-8")
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot write {folder}: {error.strerror}; choose a folder that you may write to"
            ) from error
        return folder
    raise AssertionError  # there is no last number


def _candidates(base: str) -> Iterator[Path]:
    return (Path(base) / (f"report_{number}" if number else "report") for number in count())


def _name(run: Run) -> str:
    """The name of a run, which it gets when it is first asked for."""
    run.name = run.key if run.name is None else run.name
    return run.name


def _own_folder(trainer: Any) -> str | None:
    """The folder that the logger gives to this run alone; None without one."""
    logger = trainer.loggers[0] if trainer.loggers else None
    own = getattr(logger, "log_dir", None)
    shared = getattr(logger, "save_dir", None)
    return None if own is None or (shared is not None and Path(own) == Path(shared)) else str(own)


def _save_dir(trainer: Any) -> str:
    logger = trainer.loggers[0] if trainer.loggers else None
    found = getattr(logger, "save_dir", None)
    return str(trainer.default_root_dir if found is None else found)


def _shared_folder(trainer: Any) -> str:
    """Below ``save_dir`` what the logger has of name and version."""
    logger = trainer.loggers[0] if trainer.loggers else None
    name, version = getattr(logger, "name", None), getattr(logger, "version", None)
    parts = [name, f"version_{version}" if isinstance(version, int) else version]
    return "/".join([_save_dir(trainer).rstrip("/") or "/", *(str(part) for part in parts if part not in (None, ""))])
