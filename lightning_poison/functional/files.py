"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from lightning_poison.errors import UserError

__all__ = ["check_file", "check_writable", "write_atomically"]


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write ``content`` to ``path`` through a temporary file beside it, creating its folder.

    A reader sees the old file or the new one, never a half of either.

    Raises:
        UserError: the folder cannot be created or written.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "reports" / "a.txt", "whole").read_text()
        'whole'
    """
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose a folder that you may write to") from error
    return target


def check_writable(folder: Path) -> Path:
    """Return ``folder`` if files can be written into it; it is created for that.

    Raises:
        UserError: they cannot.

    Example:
        >>> check_writable(Path(tempfile.mkdtemp()) / "new").name
        'new'
    """
    write_atomically(folder / ".writable", "").unlink(missing_ok=True)
    return folder


def check_file(path: Path) -> Path:
    """Return ``path`` if a file can be written there; no folder is left behind, as there may never be a file.

    Raises:
        UserError: it cannot.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> check_file(folder / "new" / "flips.csv").parent.exists()
        False
    """
    if path.is_dir():
        raise UserError(f"file must name a file, got the folder {path}; write {path / 'flips.csv'}, for example")
    made = []
    with suppress(OSError):  # ``check_writable`` says it better
        made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    check_writable(path.parent)
    with suppress(OSError):
        for folder in made:
            folder.rmdir()
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
