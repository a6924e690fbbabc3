"""From the many lines of a parser's or loader's message to the one that helps."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from lightning_poison.functional.checks import nearest_names

__all__ = ["checkpoint_line", "one_line"]

_PUBLIC = ("attacks", "callbacks", "certificates", "datamodules", "nets", "poisons", "victims")


def one_line(message: str, options: Iterable[str] = ()) -> str:
    """The essence of a message in one line, with the nearest names for a misspelt one.

    Args:
        message: as raised, of any number of lines.
        options: the command's options, such as ``--trainer.max_epochs``, to suggest from.

    Example:
        >>> one_line('Parser key "seed_everything":\\n  Expected a <class \\'int\\'>. Got value: x')
        'seed_everything must be int, got x'
    """
    for rule in (_own_message, _unknown_option, _unknown_class, _unknown_parameter, _wrong_type):
        line = rule(message, list(options))
        if line is not None:
            return line
    return " ".join(re.sub(r"<class '([\w.]+)'>", r"\1", message).split())


def checkpoint_line(error: Exception) -> str | None:
    """The line for a checkpoint that does not fit, or None where the error is about something else."""
    text = str(error)
    if "Error(s) in loading state_dict" in text:
        mismatch = re.search(r"size mismatch for ([\w.]+): .*?shape (torch\.Size\(\[[\d, ]*\]\)).*?is (torch\.Size\(\[[\d, ]*\]\))", text, re.S)
        missing = re.search(r"(?:Missing|Unexpected) key\(s\) in state_dict: \"([\w.]+)\"", text)
        detail = ""
        if mismatch:
            shapes = [shape.removeprefix("torch.Size(").removesuffix(")") for shape in mismatch.groups()[1:]]
            detail = f" ({mismatch[1]} is {shapes[0]} in the file and {shapes[1]} in the victim)"
        elif missing:
            detail = f" ({missing[1]} is in one of them only)"
        return (
            f"the checkpoint does not fit the victim{detail}; "
            "use the network, data and poison that it was trained with, as in the config.yaml beside it"
        )
    if re.search(r"pickle|zip archive|PytorchStreamReader|weights_only|magic number|Ran out of input", text):
        return f"the checkpoint cannot be read ({text.splitlines()[0][:120]}); name a file that Lightning has saved"
    return None


def _own_message(message: str, options: list[str]) -> str | None:
    """A message that this package has written: behind the type that refused the value."""
    found = re.search(r"Not of type \w+: (.+)", message)
    if not found:
        found = re.search(r"(there is no config .+)", message)
        return found[1].strip() if found else None
    return f"{_key(message)}: {found[1].strip()}"


def _unknown_option(message: str, options: list[str]) -> str | None:
    found = re.search(r"unrecognized arguments: (.+)", message)
    if found:
        name = found[1].split()[0].partition("=")[0]
        return f"there is no key {name}{_suggestion(name, options)}"
    found = re.search(r"Key ['\"]([\w.+]+)['\"] is not expected|does not accept (?:nested )?key ['\"]([\w.+]+)['\"]", message)
    if found:
        name = found[1] or found[2]
        return f"there is no key {name}{_suggestion(f'--{name}', options)}"
    return None


def _unknown_class(message: str, options: list[str]) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)", message)
    if found is None:
        found = re.search(r"(?:No module named|Problem with given class_path|Import path) '([\w.]+)'", message)
        if found is None or "Option" in message:
            return None
    name = found[1]
    return f"{_key(message)}: there is no class {name}{_suggestion(name.rpartition('.')[2], _public_classes())}"


def _unknown_parameter(message: str, options: list[str]) -> str | None:
    found = re.search(r"Option '([\w.]+)' is not accepted", message)
    if found is None:
        return None
    key = _key(message)
    owner = key.removesuffix(f".{found[1]}")
    return f"{owner} takes no {found[1]}{_suggestion(found[1], _public_parameters())}"


def _wrong_type(message: str, options: list[str]) -> str | None:
    types = re.findall(r"Expected an? <class '([\w.]+)'>", message)
    if not types:
        return None
    value = re.search(r"val='([^']*)'", message) or re.search(r"(?:Given|Got) value: (.+)", message)
    names = dict.fromkeys({"NoneType": "null"}.get(name, name.rpartition(".")[2]) for name in types)
    return f"{_key(message)} must be {' or '.join(names)}, got {value[1].strip() if value else 'something else'}"


def _key(message: str) -> str:
    """The full key: the parser's, then that of the argument nested in it."""
    outer = re.search(r'Parser key "([\w.]+)"', message)
    nested = re.findall(r"NestedArg\(key='([\w.]+)'", message)
    parts = ([outer[1]] if outer else []) + nested[-1:]
    inner = re.findall(r'Parser key "([\w.]+)"', message)
    if not nested and len(inner) > 1:
        parts += inner[1:]
    return ".".join(parts) or "an argument"


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = nearest_names(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _public_objects() -> dict[str, Any]:
    modules = [importlib.import_module(f"lightning_poison.{name}") for name in _PUBLIC]
    return {name: getattr(module, name) for module in modules for name in module.__all__}


def _public_classes() -> list[str]:
    return [name for name, thing in _public_objects().items() if inspect.isclass(thing)]


def _public_parameters() -> list[str]:
    classes: list[Callable[..., Any]] = [thing for thing in _public_objects().values() if inspect.isclass(thing)]
    return sorted({parameter for thing in classes for parameter in inspect.signature(thing).parameters})
