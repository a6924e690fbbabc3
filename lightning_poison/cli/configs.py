"""Where configs are, what makes a file one, and on which others it builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no types

import lightning_poison
from lightning_poison.errors import UserError

__all__ = ["describe_configs", "find_config", "read_config", "shipped_configs", "with_bases", "without_base"]

_BEGIN = "begin with a shipped one, see lightning-poison configs"
_BASE = re.compile(r"^base[ \t]*:.*$", re.MULTILINE)


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
    """The file that ``--config NAME`` means: in the current folder, else among those shipped with the package.

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


def with_bases(path: Path) -> list[Path]:
    """The files to read for a config, in this order: what it builds on, and itself at the end.

    A file that holds ``base: OTHER`` is read as if ``--config OTHER`` stood before it. OTHER is looked for beside the
    file, then where :func:`find_config` looks; it may have a base itself.

    Args:
        path: of a file that exists.

    Raises:
        UserError: a file holds no keys, a base is missing, or bases go in a circle.

    Example:
        >>> [path.name for path in with_bases(find_config("digits.yaml"))]
        ['digits.yaml']
    """
    files = [path]
    while (base := _base_of(files[0])) is not None:
        seen = [file.resolve() for file in files]
        if base.resolve() in seen:
            circle = files[seen.index(base.resolve()) :: -1]
            names = " -> ".join(file.name for file in [*circle, base])
            raise UserError(f"--config {path} must build on other files, got a circle of bases, {names}; take one out")
        files.insert(0, base)
    return files


def without_base(text: str) -> str:
    r"""A config's text with an empty line for its ``base``, so that the parser's messages count the file's lines.

    Example:
        >>> without_base("base: digits.yaml\ntrainer: {max_epochs: 3}")
        '\ntrainer: {max_epochs: 3}'
    """
    return _BASE.sub("", text)


def read_config(path: Path) -> dict[str, Any]:
    """The keys of one file, without those of its base; none where the YAML is wrong, which the parser says better.

    Args:
        path: of a file that exists.

    Raises:
        UserError: the file is no text, is empty, or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise UserError(f"--config {path} must be a YAML file in UTF-8, got one that is no text; {_BEGIN}") from error
    except yaml.YAMLError:
        return {}
    if content is None:
        raise UserError(f"--config {path} must hold KEY: VALUE, got an empty file; {_BEGIN}")
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold KEY: VALUE, got a {type(content).__name__}; {_BEGIN}")
    return content


def _base_of(path: Path) -> Path | None:
    keys = read_config(path)
    if "base" not in keys:
        return None
    name = keys["base"]
    if not isinstance(name, str):
        raise UserError(f"base in {path} must name one config file, got {name!r}; write base: digits.yaml")
    beside = path.parent / name
    if beside.is_file() and beside.resolve() != path.resolve():
        return beside
    try:
        return find_config(name)
    except UserError as error:
        raise UserError(f"base in {path}: {error}") from error
