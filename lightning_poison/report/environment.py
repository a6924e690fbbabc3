"""Where a run took place: command, seeds, versions."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import lightning_poison

__all__ = ["command_line", "global_seed", "now", "versions"]

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "lightning", "torchmetrics", "torchattacks")


def command_line() -> str:
    """The command that started this process, as one would type it."""
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("python")
    start = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    if program.suffix == ".py" and program.name != "__main__.py":
        start = ["python", str(program)]
    return shlex.join([*start, *sys.argv[1:]])


def global_seed() -> int | None:
    """The seed that Lightning's ``seed_everything`` set, None where it was not called."""
    text = os.environ.get("PL_GLOBAL_SEED", "")
    return int(text) if text.lstrip("-").isdigit() else None


def versions() -> dict[str, str]:
    """The versions that decide what a run computes.

    Example:
        >>> "torch" in versions()
        True
    """
    found = {"python": platform.python_version(), "lightning_poison": lightning_poison.__version__}
    return found | {package: version for package in _PACKAGES if (version := _version(package)) is not None}


def now() -> str:
    """This moment, ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
