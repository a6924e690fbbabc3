"""How long a user waits before anything happens."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from benchmarks.runner import Row, paired_seconds, row

__all__ = ["run"]

IMPORT_LIMIT = 0.1
HELP_LIMIT = 1.5


def run() -> list[Row]:
    """Import and bare help against their limits; the interpreter's own start is taken off the import."""
    nothing, importing, helping = paired_seconds(
        lambda: _python("-c", "pass"),
        lambda: _python("-c", "import lightning_poison"),
        lambda: _python("-m", "lightning_poison", "--help"),
        rounds=9,
    )
    import_seconds = median(one - other for one, other in zip(importing, nothing, strict=True))
    return [
        row("startup", "import lightning_poison", f"{IMPORT_LIMIT} s", import_seconds / IMPORT_LIMIT, 1.0),
        row("startup", "python -m lightning_poison --help", f"{HELP_LIMIT} s", median(helping) / HELP_LIMIT, 1.0),
    ]


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
