"""Finished runs in a folder, so that a job that was killed goes on where it stood."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from lightning_poison.functional.files import write_atomically

__all__ = ["RunCache"]

_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class RunCache:
    """The models of finished runs, one file each, written whole or not at all.

    A file starts with the SHA-256 of the rest, so that a damaged one counts as missing. Models are pickled: use a
    folder that nobody else can write to.

    Args:
        folder: where the files are.

    Example:
        >>> cache = RunCache(Path("runs"))
        >>> cache.store(3, {"weight": 1.5})
        >>> 3 in cache, 4 in cache, cache.load(3)
        (True, False, {'weight': 1.5})
    """

    folder: Path

    def __contains__(self, run: int) -> bool:
        return self._read(run) is not None

    def store(self, run: int, model: Any) -> None:
        """Keep the model of a run.

        Raises:
            UserError: the folder cannot be written.
        """
        content = cloudpickle.dumps(model)  # models may hold functions of the script
        write_atomically(self._path(run), hashlib.sha256(content).digest() + content)

    def load(self, run: int) -> Any:
        """The model of a run that is in the cache.

        Raises:
            KeyError: it is not, or no longer.
        """
        content = self._read(run)
        if content is None:
            raise KeyError(run)
        return pickle.loads(content)  # noqa: S301  # our own file, its digest verified

    def _path(self, run: int) -> Path:
        return self.folder / f"run_{run:06d}.pickle"

    def _read(self, run: int) -> bytes | None:
        try:
            content = self._path(run).read_bytes()
        except FileNotFoundError:
            return None
        digest, rest = content[:_DIGEST], content[_DIGEST:]
        return rest if hashlib.sha256(rest).digest() == digest else None
