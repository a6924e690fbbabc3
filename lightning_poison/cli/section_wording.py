"""The line for a poison, a strategy or a victim that is something else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from lightning_poison import poisons
from lightning_poison.cli.keys import entry_of

__all__ = ["section_line"]


def section_line(message: str, arguments: Sequence[str]) -> str | None:
    r"""The line for what cannot stand in ``poison``, ``strategies`` or ``victims``, else None.

    Args:
        message: as the parser raised it.
        arguments: what was typed.

    Example:
        >>> section_line('Parser key "poison":\n  Expected a dot import path string: Medoids', ["--poison=Medoids"])
        'poison cannot be Medoids, which only chooses points; write --poison.select=Medoids'
    """
    found = re.match(r'Parser key "(poison|strategies|victims)":', message)
    value = re.search(r"(?:Given value|Got value|import path string): (.+)", message.replace("Given value type", ""))
    path = re.search(r"'([\w.]+)' is not accepted as class_path", message)
    if found is None or (value is None and path is None):
        return None
    section, given = found[1], (value or path or [""])[1].strip()
    if section != "poison" and "Expected a <class 'dict'>" in message:
        return f"{section} must be names with what they stand for, got {given}; write {section}: {{NAME: ...}}"
    named = re.search(r"'class_path': '([\w.]+)'", given)
    name = named[1] if named else given
    key = section
    if section != "poison":
        key = entry_of(section, arguments, lambda entry: name in _ways_to_name(entry) or str(entry) == given)
        key = key or f"{section}.NAME"
    return _victim_line(key, name) if section == "victims" else _poison_line(key, name, message, arguments)


def _victim_line(key: str, name: str) -> str:
    name = {"None": "null"}.get(name, name)
    net = name if re.fullmatch(r"[A-Z]\w*|[a-z_]\w*(\.\w+)+", name) and name not in ("True", "False") else "MLP"
    return f"{key} must have a net and may have a recipe, got {name}; write the network under net, as in {{net: {net}}}"


def _poison_line(key: str, name: str, message: str, arguments: Sequence[str]) -> str | None:
    thing = getattr(poisons, name.rpartition(".")[2], None)
    if inspect.isclass(thing) and issubclass(thing, poisons.Selector):
        is_typed = any(argument.partition("=")[0] == f"--{key}" for argument in arguments)
        remedy = f"write --{key}.select={name}" if is_typed else f"put it under select, as in {{select: {name}}}"
        return f"{key} cannot be {name}, which only chooses points; {remedy}"
    if "Not a valid subclass of" in message:
        return (
            f"{key} must be null or a poison, got {name}; "
            "write a selector, as in {select: RandomPoints}, or a class_path with init_args"
        )
    return None


def _ways_to_name(entry: Any) -> tuple[str, ...]:
    return (str(entry["class_path"]),) if isinstance(entry, dict) and "class_path" in entry else (str(entry),)
