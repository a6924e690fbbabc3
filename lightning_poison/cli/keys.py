"""Which key of the config a message is about, and what stands near a name that does not exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no types

from lightning_poison.cli.configs import find_config
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import nearest_names

__all__ = ["entry_of", "key_of", "suggestion", "typed"]


def key_of(message: str, arguments: Sequence[str]) -> str:
    """The key that a message is about, the whole of it where it was typed."""
    nested = re.findall(r"NestedArg\(key='([\w.]+)'", message)
    named = re.findall(r'Parser key "([\w.]+)"', message)
    if nested:
        return typed(nested[-1], arguments)
    return typed(named[-1], arguments) if named else "an argument"


def typed(key: str, arguments: Sequence[str]) -> str:
    """The typed option that ends in ``key``, else ``key``.

    Example:
        >>> typed("per_class", ["fit", "--poison.select.per_class=3"])
        'poison.select.per_class'
    """
    options = (argument.partition("=")[0].lstrip("-").rstrip("+") for argument in arguments if argument[:2] == "--")
    return next((option for option in options if option == key or option.endswith(f".{key}")), key)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Which of ``known`` may be meant; empty where none is near.

    Example:
        >>> suggestion("selct", ["--select", "--relabel"])
        '; did you mean select?'
    """
    near = [option.lstrip("-") for option in nearest_names(name, known)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def entry_of(section: str, arguments: Sequence[str], is_it: Callable[[Any], bool]) -> str:
    """The key of an entry that the parser reports by its section only.

    Args:
        section: ``strategies`` or ``victims``.
        arguments: what was typed, with the names of the config files.
        is_it: whether the message is about this value.

    Returns:
        such as ``strategies.random``; empty where there is no such entry.

    Example:
        >>> entry_of("victims", ["experiment", "--victims.A.net=MLP", "--victims.B=MLP"], lambda value: value == "MLP")
        'victims.B'
        >>> entry_of("victims", ["experiment"], lambda value: value == "MLP")
        ''
    """
    entries: dict[str, Any] = {}
    for option, value in _options(arguments):
        if option in ("-c", "--config"):
            entries.update(_entries_in_file(value, section))
            continue
        first, _, rest = option.lstrip("-").partition(".")
        name, _, key = rest.partition(".")
        if first == section and key:
            known = entries.get(name)
            entries[name] = {**(known if isinstance(known, dict) else {}), key.partition(".")[0]: value}
        elif first == section and name:
            entries[name] = value
    return next((f"{section}.{name}" for name, value in entries.items() if is_it(value)), "")


def _options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        option, equals, value = argument.partition("=")
        if option.startswith("-"):
            pairs.append((option, value if equals else following))
    return pairs


def _entries_in_file(name: str, section: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(find_config(name)).read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError, yaml.YAMLError):  # reported elsewhere
        return {}
    entries = content.get(section) if isinstance(content, dict) else None
    return {str(key): value for key, value in entries.items()} if isinstance(entries, dict) else {}
