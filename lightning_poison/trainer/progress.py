"""Progress of long measurements: in Lightning's own bar, on a terminal, or as whole lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from lightning_poison.functional.progress import line_printer

__all__ = ["progress"]


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
        yield line_printer(description, total)


@contextmanager
def _rich_task(rich_progress: Any, description: str, total: int) -> Iterator[Callable[[int], None]]:
    task = rich_progress.add_task(f"[white]{description}", total=total)

    def advance(n: int) -> None:
        rich_progress.update(task, advance=n, refresh=True)

    try:
        yield advance
    finally:
        rich_progress.remove_task(task)
