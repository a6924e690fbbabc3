"""Whether a config file is one."""

from __future__ import annotations

from pathlib import Path

import yaml  # type: ignore[import-untyped]  # ships no types

from lightning_poison.errors import UserError

__all__ = ["check_config"]

_BEGIN = "begin with a shipped one, see lightning-poison configs"


def check_config(path: Path) -> Path:
    """Refuse what is no text, is empty, or is no mapping; the parser says it if the YAML is wrong.

    Args:
        path: of a file that exists.

    Returns:
        the path.

    Raises:
        UserError: the file holds no keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise UserError(f"--config {path} must be a YAML file in UTF-8, got one that is no text; {_BEGIN}") from error
    except yaml.YAMLError:
        return path
    if content is None:
        raise UserError(f"--config {path} must hold KEY: VALUE, got an empty file; {_BEGIN}")
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold KEY: VALUE, got a {type(content).__name__}; {_BEGIN}")
    return path
