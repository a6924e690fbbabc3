"""The folder that keeps an experiment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_poison.errors import UserError
from lightning_poison.functional.files import check_writable, write_atomically

__all__ = ["ExperimentFolder"]

_FORMAT = 1
_NAME = "experiment.json"


@dataclass(frozen=True)
class ExperimentFolder:
    """Where the parts of an experiment are kept.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def flips(self) -> Path:
        """Folder of the flip lists."""
        return self.path / "flips"

    @property
    def runs(self) -> Path:
        """Folder of the finished runs."""
        return self.path / "runs"

    def check(self) -> ExperimentFolder:
        """Refuse a folder that holds other things; nothing is written yet.

        Raises:
            UserError: it is such a folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"folder must be a folder, got the file {self.path}; name another one: --folder DIR")
        if (
            self.path.is_dir()
            and self._note() is None
            and any(not each.name.startswith(".") for each in self._entries())
        ):
            raise UserError(
                f"folder must be empty or of an experiment, got {self.path}; name another one: --folder DIR"
            )
        return self

    def claim(self, data: str, description: Any) -> None:
        """Note down which data the folder's runs are of.

        Args:
            data: digest of the data.
            description: of the experiment, as plain values, for people.

        Raises:
            UserError: the folder holds an experiment on other data, or cannot be written.
        """
        check_writable(self.path)
        note = self._note()
        if note is not None and note.get("data") != data:
            raise UserError(
                f"folder {self.path} holds an experiment on other data ({note.get('data')}, these are {data}); "
                "name another one: --folder DIR"
            )
        content = {"format": _FORMAT, "data": data, "experiment": description}
        write_atomically(self.path / _NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _entries(self) -> list[Path]:
        return list(self.path.iterdir())

    def _note(self) -> dict[str, Any] | None:
        try:
            note = json.loads((self.path / _NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {self.path / _NAME}: {error}; name another folder: --folder DIR") from error
        return note if isinstance(note, dict) else {}
