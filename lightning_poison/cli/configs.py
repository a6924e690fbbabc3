"""Where configs are: in the current folder, else among those shipped with the package."""

from __future__ import annotations

from pathlib import Path

import lightning_poison
from lightning_poison.errors import UserError

__all__ = ["describe_configs", "find_config", "shipped_configs"]


def shipped_configs() -> dict[str, Path]:
    """The shipped configs by file name, sorted.

    Example:
        >>> "digits.yaml" in shipped_configs()
        True
    """
    package = Path(lightning_poison.__file__).resolve().parent
    inside, beside = package / "configs", package.parent / "configs"
    folder = inside if inside.is_dir() else beside
    return {path.name: path for path in sorted(folder.glob("*.yaml"))}


def describe_configs() -> dict[str, str]:
    """The first line of each shipped config, which is a comment that says what it is for."""
    return {
        name: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for name, path in shipped_configs().items()
    }


def find_config(name: str) -> Path:
    """The file that ``--config NAME`` means.

    Args:
        name: a path, or the name of a shipped config, with or without ``.yaml``.

    Raises:
        UserError: there is no such file; the message lists the shipped ones.

    Example:
        >>> find_config("digits").name
        'digits.yaml'
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return shipped[candidate]
    raise UserError(f"there is no config {name} here, and the shipped ones are {', '.join(shipped)}")
