"""What a long computation calls to show how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from tqdm import tqdm

__all__ = ["Progress", "line_printer", "no_progress", "show_progress"]

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], Any]]]

_SECONDS_BETWEEN_LINES = 10.0


def no_progress(description: str, total: int) -> AbstractContextManager[Callable[[int], Any]]:  # noqa: ARG001  # the signature is shared
    """Show nothing.

    Example:
        >>> with no_progress("nothing", 3) as advance:
        ...     advance(3)
    """
    return nullcontext(lambda _: None)


@contextmanager
def show_progress(description: str, total: int) -> Iterator[Callable[[int], Any]]:
    """A bar on a terminal, whole lines in a pipe; silent where the work takes less than a second (ten in a pipe).

    Args:
        description: what is under way.
        total: number of steps.

    Yields:
        ``advance(n)``, to be called when n more steps are done.

    Example:
        >>> with show_progress("counting", 2) as advance:
        ...     _ = advance(2)
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=description, delay=1.0, leave=False, file=sys.stderr) as bar:
            yield bar.update
    else:
        yield line_printer(description, total)


def line_printer(description: str, total: int) -> Callable[[int], None]:
    """``advance(n)`` that prints a line with the time left now and then."""
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
