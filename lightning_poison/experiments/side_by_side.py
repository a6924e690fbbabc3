"""Independent pieces of work in parallel processes, with one common progress."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.progress import Progress
from lightning_poison.functional.workers import in_workers

__all__ = ["Ticker", "side_by_side"]

_SECONDS = 1.0
_SILENT = 10.0  # seconds without a sign of life
_SLACK = 1e-6  # sums of shares of a step
_PREFIX = ".progress_"


@dataclass
class Ticker:
    """Tells the process that waits how far a piece of work is, through a file: every backend of joblib knows files.

    Args:
        path: of the file.
    """

    path: Path
    done: float = 0.0
    _written: float = 0.0

    def advance(self, steps: float) -> None:
        """Count steps that are done."""
        self.done += steps
        now = time.monotonic()
        if now - self._written > _SECONDS:
            self._written = now
            self.flush()

    def flush(self) -> None:
        """Write down how many."""
        with contextlib.suppress(ValueError):  # progress is worth no failure
            write_atomically(self.path, repr(self.done))


def side_by_side(
    work: Callable[..., None],
    pieces: Sequence[tuple[Any, ...]],
    jobs: int,
    folder: Path,
    description: str,
    total: int,
    progress: Progress,
) -> None:
    """Call ``work(ticker, *piece)`` for each piece, in as many processes as are asked for.

    Args:
        work: keeps its results itself, in files.
        pieces: the arguments of each call; arrays in them are shared.
        jobs: processes; 1: this one; -1: one for each core. ``joblib.parallel_config`` names another backend.
        folder: where progress is written down meanwhile.
        description: of the progress.
        total: number of steps that the tickers will count in all.
        progress: shows them.
    """
    _sweep(folder)
    if not pieces:
        return
    with _counted(folder, description, total, progress) as notes:
        tickers = [Ticker(notes / str(number)) for number in range(len(pieces))]
        jobs = 1 if len(pieces) == 1 else jobs
        calls = ((work, ticker, piece) for ticker, piece in zip(tickers, pieces, strict=True))
        with nullcontext() if jobs == 1 else _terminable():
            for _ in in_workers(_finish, calls, jobs, batch_size=1, return_as="list"):
                pass


def _finish(work: Callable[..., None], ticker: Ticker, piece: tuple[Any, ...]) -> None:
    work(ticker, *piece)
    ticker.flush()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM stops the workers, too, as Ctrl-C does; by default they would be left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _counted(folder: Path, description: str, total: int, progress: Progress) -> Iterator[Path]:
    """A folder for tickers, whose sum a thread shows."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    ended = threading.Event()
    try:
        with progress(description, total) as advance:
            watcher = threading.Thread(target=_watch, args=(notes, ended, total, advance), daemon=True)
            watcher.start()
            try:
                yield notes
            finally:
                ended.set()
                watcher.join()
    finally:
        shutil.rmtree(notes, ignore_errors=True)
        _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove the notes of processes that were killed; one that lives touches its own every second.

    Times are the file system's, which machines that share it agree on. If a process was asleep for long and wakes up,
    its tickers write their notes again.
    """
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as new:
        now = os.fstat(new.fileno()).st_mtime
        for notes in folder.glob(f"{_PREFIX}*"):
            if now - notes.stat().st_mtime > _SILENT:
                shutil.rmtree(notes, ignore_errors=True)


def _watch(notes: Path, ended: threading.Event, total: int, advance: Callable[[int], Any]) -> None:
    shown = 0
    while True:
        last = ended.wait(_SECONDS)
        with contextlib.suppress(OSError):
            os.utime(notes)
        done = min(int(sum(_read(path) for path in notes.glob("[0-9]*")) + _SLACK), total)
        if done > shown:
            advance(done - shown)
            shown = done
        if last:
            return


def _read(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0
