"""The line for a class of the config that was given too few arguments, or others than it takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning import LightningModule
from torch import nn

from lightning_poison.cli.keys import entry_of, key_of, suggestion, typed
from lightning_poison.experiments import VictimPlan

__all__ = ["argument_line"]


def argument_line(
    message: str, options: Sequence[str], arguments: Sequence[str], owner: Callable[..., Any] | None
) -> str | None:
    """The line for a missing or unknown argument, or None where the message is about something else.

    Args:
        message: as the parser raised it.
        options: of the class, or of the command where there is no class.
        arguments: what was typed.
        owner: the class or function whose arguments are read; None: the command's own are.

    Example:
        >>> from lightning_poison.poisons import LabelNoise
        >>> argument_line("Option 'per_class' is not accepted", ["--rate", "--classes+"], [], LabelNoise)
        'there is no key per_class; did you mean classes? (LabelNoise takes rate, classes)'
    """
    words = dict.fromkeys(option.lstrip("-").rstrip("+") for option in options if option[:2] == "--")
    names = [word for word in words if not re.match(r"(.*\.)?help$|config$|print_", word)]
    unknown = re.search(r"Option '([\w.+]+)' is not accepted", message)
    missing = re.search(r"the following arguments are required: ([\w.]+)", message)
    group = re.search(r'Parser key "(\w+)":\s+Unable to load config (.+)', message)
    if owner is not None and (unknown or missing) and _is_net_for_another_number(owner, names):
        return (
            f"{_key_of_net(owner, arguments)} must take num_classes, got {owner.__name__}, which does not; "
            "give its constructor an argument num_classes, or name a function of num_classes that makes it"
        )
    if unknown:
        return _unknown(unknown[1], names, arguments, owner)
    if missing and owner is not None:
        return _missing(missing[1], arguments, owner)
    if group:
        keys = [name.partition(".")[2] for name in names if name.startswith(f"{group[1]}.")]
        value = group[2].strip("'\" ")
        where = key_of(message, arguments)
        if owner is VictimPlan:
            entry = entry_of("victims", arguments, lambda given: isinstance(given, dict) and given.get(where) == value)
            where = f"{entry or 'victims.NAME'}.{group[1]}"
        return f"{where} must be keys with values, got {value}; its keys are {', '.join(keys)}"
    return None


def _unknown(key: str, names: list[str], arguments: Sequence[str], owner: Callable[..., Any] | None) -> str:
    first = key.partition(".")[0]
    if key == "class_path":  # it is there, and something else is beside it
        return "a class_path may have only init_args beside it; write the arguments of the class under init_args"
    if first not in names and owner is not None:
        key = first  # the name is wrong, not what stands below it
    known = [*names, "class_path", "init_args"] if owner is not None else names
    near = suggestion(key.rpartition(".")[2], known)
    if owner is not None:
        taken = f"{owner.__name__} takes {', '.join(name for name in names if '.' not in name) or 'no arguments'}"
        near = f"{near} ({taken})" if near else f"; {taken}"
    return f"{_entry_with(key, owner, arguments)}there is no key {typed(key, arguments)}{near}"


def _entry_with(key: str, owner: Callable[..., Any] | None, arguments: Sequence[str]) -> str:
    """Which strategy or victim of an experiment gives a class this key, for the beginning of a line; else empty."""

    def has_it(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        named = str(value.get("class_path")).rpartition(".")[2] == getattr(owner, "__name__", None)
        given = value.get("init_args")
        return (named and isinstance(given, dict) and key in given) or any(map(has_it, value.values()))

    if typed(key, arguments) != key:
        return ""
    found = (entry_of(section, arguments, has_it) for section in ("strategies", "victims"))
    return next((f"{entry}: " for entry in found if entry), "")


def _missing(name: str, arguments: Sequence[str], owner: Callable[..., Any]) -> str:
    if owner is VictimPlan:
        key = entry_of("victims", arguments, lambda value: isinstance(value, dict) and name not in value)
        key = key or "victims.NAME"
        return f"{key}.{name} is missing, which a victim needs; write {name}: MLP, or a class_path with init_args"
    key = _key_of_class(owner, arguments)
    if key:
        return f"{key}.{name} is missing, which {owner.__name__} needs; add --{key}.{name}=VALUE"
    return f"{name} is missing, which {owner.__name__} needs; write it under its init_args"


def _key_of_class(owner: Callable[..., Any], arguments: Sequence[str]) -> str:
    """The typed option that names the class; empty: it stands in a file."""
    for argument in arguments:
        key, _, value = argument.lstrip("-").partition("=")
        if value.rpartition(".")[2] == owner.__name__:
            return key.rstrip("+")
    return ""


def _key_of_net(owner: Callable[..., Any], arguments: Sequence[str]) -> str:
    """Where a network is named, as far as it can be found."""

    def has_it(victim: Any) -> bool:
        net = victim.get("net") if isinstance(victim, dict) else None
        path = net.get("class_path") if isinstance(net, dict) else net
        return str(path).rpartition(".")[2] == owner.__name__

    entry = entry_of("victims", arguments, has_it)
    return _key_of_class(owner, arguments) or (f"{entry}.net" if entry else "net")


def _is_net_for_another_number(owner: Callable[..., Any], names: list[str]) -> bool:
    """Whether it is a network whose first argument is left to the victim and is not the number of classes."""
    if not inspect.isclass(owner) or not issubclass(owner, nn.Module) or issubclass(owner, LightningModule):
        return False
    parameters = inspect.signature(owner).parameters
    first = next(iter(parameters), "num_classes")
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return first not in names and "num_classes" not in parameters and not takes_any
