"""Progress of long measurements: in Lightning's own bar, on a terminal, or as whole lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["progress"]

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(trainer: Any, description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of ``total`` steps on rank zero; yields ``advance(n)``.

    Silent where the Trainer's own progress bar is switched off.
    """
    bar = getattr(trainer, "progress_bar_callback", None)
    if bar is None or not trainer.is_global_zero or getattr(bar, "is_disabled", False):
        yield lambda _: None
        return
    rich_progress = getattr(bar, "progress", None)
    if rich_progress is not None and sys.stdout.isatty() and getattr(rich_progress, "live", None) is not None:
        with _rich_task(rich_progress, description, total) as advance:
            yield advance
    elif sys.stderr.isatty():
        with tqdm(total=total, desc=description, leave=False, file=sys.stderr) as shown:
            yield lambda n: (shown.update(n), None)[1]
    else:
        yield _line_printer(description, total)


@contextmanager
def _rich_task(rich_progress: Any, description: str, total: int) -> Iterator[Callable[[int], None]]:
    task = rich_progress.add_task(f"[white]{description}", total=total)

    def advance(n: int) -> None:
        rich_progress.update(task, advance=n, refresh=True)

    try:
        yield advance
    finally:
        rich_progress.remove_task(task)


def _line_printer(description: str, total: int) -> Callable[[int], None]:
    started = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = (now - started) / done * (total - done) if done else 0
            print(f"{description}: {done}/{total}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return advance
