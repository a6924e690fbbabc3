"""``python -m lightning_poison`` and the console script ``lightning-poison``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning_poison.cli.front import answer_quickly

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: as typed after the program's name; None: those of the process.

    Returns:
        the exit code: 0, or 2 for a mistake of the user's.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = answer_quickly(given)
    if code is not None:
        return code
    from lightning_poison.cli.run import run  # torch and Lightning take seconds to import

    return run(given)


if __name__ == "__main__":
    sys.exit(main())
