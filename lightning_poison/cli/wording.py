"""From the many lines of a parser's or loader's message to the one that helps."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import nearest_names

__all__ = ["checkpoint_line", "instantiation_line", "one_line", "twins_line"]

_MODULES_OF_KEY = {
    "data": ("datamodules",),
    "model": ("victims", "nets"),
    "poison": ("poisons",),
    "trainer": ("callbacks", "attacks", "certificates"),
}
# How the parser's own lines begin; any other line of its reports was written by a class that refused its arguments.
_PARSERS_OWN = re.compile(
    r"(Does not validate|Subtypes:|Errors:|Expected an? |Given value|Not a valid subclass|Subclass types"
    r"|an? (class|dict) |Type [\w.]+\W|Parser key|Problem|Import path|Option |$)"
)


def one_line(message: str, options: Iterable[str] = (), arguments: Sequence[str] = ()) -> str:
    r"""The essence of a message in one line, with the nearest names for a misspelt one.

    Args:
        message: as raised, of any number of lines.
        options: the command's options, such as ``--trainer.max_epochs``, to suggest from.
        arguments: what was typed, to name the whole key.

    Example:
        >>> one_line("Parser key \"seed_everything\":\n  Expected a <class 'int'>. Got value: x")
        'seed_everything must be int, got x'
        >>> one_line("- Multiple subclasses with name Net. Give the full class path ...: a.Net, b.Net.\n")
        'an argument: there are several classes Net; write one of a.Net, b.Net'
    """
    message = _of_its_own_type(message)
    for rule in _RULES:
        line = rule(message, list(options), arguments)
        if line is not None:
            return line
    return " ".join(re.sub(r"<class '([\w.]+)'>", r"\1", message).split())


def instantiation_line(error: BaseException) -> str | None:
    """The line of the class that refused its arguments while the config was turned into objects, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if "Errors:" not in str(error):
        return None
    lines = (line.strip().removeprefix("- ") for line in str(error).splitlines())
    own = [line for line in lines if not _PARSERS_OWN.match(line)]
    return own[0] if own else None


def checkpoint_line(error: Exception) -> str | None:
    """The line for a checkpoint that does not fit, or None where the error is about something else."""
    text = str(error)
    if "Error(s) in loading state_dict" in text:
        return (
            f"the checkpoint does not fit the victim{_mismatch(text)}; "
            "use the network, data and poison that it was trained with, as in the config.yaml beside it"
        )
    return None


def twins_line(error: Exception) -> str | None:
    """The line for two callbacks that a checkpoint couldn't tell apart, or None where it's another error.

    Example:
        >>> twins_line(RuntimeError("Found more than one stateful callback of type `AdversarialPaths`. In ..."))
        'trainer.callbacks hold two equal AdversarialPaths; leave one out, or give each its own name'
    """
    found = re.search(r"more than one stateful callback of type `(\w+)`", str(error))
    return f"trainer.callbacks hold two equal {found[1]}; leave one out, or give each its own name" if found else None


def _of_its_own_type(message: str) -> str:
    """Without what a union's other types say of a class that one of them takes."""
    subtypes = re.findall(r"<class '([\w.]+)'>", next(iter(re.findall(r"Subtypes: .*", message)), ""))
    kept = []
    for line in message.splitlines(keepends=True):
        found = re.search(r"Import path ([\w.]+)\.(\w+) does not correspond to a subclass of \w+", line)
        bases = getattr(getattr(sys.modules.get(found[1]), found[2], None), "__mro__", ()) if found else ()
        names = {f"{base.__module__}.{base.__qualname__}" for base in bases}
        if not names & set(subtypes):
            kept.append(line)
    return "".join(kept)


def _mismatch(text: str) -> str:
    sizes = re.search(r"size mismatch for ([\w.]+): .*?Size\((\[[\d, ]*\])\).*?Size\((\[[\d, ]*\])\)", text, re.DOTALL)
    if sizes:
        return f" ({sizes[1]} is {sizes[2]} in the file and {sizes[3]} in the victim)"
    key = re.search(r"(?:Missing|Unexpected) key\(s\) in state_dict: \"([\w.]+)\"", text)
    return f" ({key[1]} is in one of them only)" if key else ""


def _refusal(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Not of type \w+: (.+)", message)
    if found:
        return f"{_key(message, arguments)}: {found[1].strip()}"
    found = re.search(r"there is no config .+", message)
    return found[0].strip() if found else None


def _unknown_option(message: str, options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"unrecognized arguments: (.+)", message)
    if found:
        name = _typed(found[1].split()[0].partition("=")[0].lstrip("-"), arguments)
        return f"there is no key {name}{_suggestion(f'--{name}', options)}"
    found = re.search(r"(?:Key|does not accept (?:nested )?(?:key|option)) ['\"]([\w.+]+)['\"]", message)
    return f"there is no key {found[1]}{_suggestion(f'--{found[1]}', options)}" if found else None


def _ambiguous_class(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Multiple subclasses with name (\w+)\. .*?: ([\w.<>, ]+)\.\s", message)
    if found is None:
        return None
    return f"{_key(message, arguments)}: there are several classes {found[1]}; write one of {found[2]}"


def _unknown_class(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)", message)
    if found is None and "Option" not in message:
        found = re.search(r"(?:No module named|Problem with given class_path|Import path) '([\w.]+)'", message)
    if found is None:
        return None
    key = _key(message, arguments)
    module, _, wanted = found[1].rpartition(".")
    if module == "torchattacks" and module in sys.modules:
        near, known = _suggestion(wanted, sys.modules[module].__all__), sys.modules[module].__version__
        more = "" if near else "; if a newer one has it: pip install --no-deps torchattacks==3.5.1"
        return f"{key}: there is no class {found[1]} in torchattacks {known}{near}{more}"
    names = [name for name, thing in _public_objects(key).items() if inspect.isclass(thing)]
    if wanted in names:
        return f"{key} cannot be {wanted}, which is a class of another kind"
    return f"{key}: there is no class {found[1]}{_suggestion(wanted, names)}"


def _unknown_parameter(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Option '([\w.]+)' is not accepted", message)
    if found is None:
        return None
    key = _typed(found[1], arguments)
    classes = [thing for thing in _public_objects(key).values() if inspect.isclass(thing)]
    parameters = {parameter for thing in classes for parameter in inspect.signature(thing).parameters}
    name = found[1].rpartition(".")[2]
    return f"there is no key {key}{_suggestion(name, sorted(parameters - {name}))}"  # another class may have it


def _wrong_type(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    expected = re.findall(r"Expected an? (?:<class '([\w.]+)'>|typing\.Literal\[([^\]]+)\])", message)
    if not expected:
        return None
    value = re.search(r"val='([^']*)'", message) or re.search(r"(?:Given|Got) value: (.+)", message)
    words = [word for name, choices in expected for word in [name, *re.findall(r"[\w.-]+", choices)] if word]
    names = list(dict.fromkeys({"NoneType": "null"}.get(word, word.rpartition(".")[2]) for word in words))
    given = value[1].strip() if value else "something else"
    allowed = " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return f"{_key(message, arguments)} must be {allowed}, got {given}"


def _missing_key(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"the following arguments are required: ([\w.]+)", message)
    if found is None:
        return None
    name = found[1].removeprefix(f"{arguments[0]}." if arguments else "")
    for argument in arguments:  # a parameter of a class that was named: ToClass wants a label
        key, _, value = argument.lstrip("-").partition("=")
        thing = _public_objects(key).get(value.rpartition(".")[2])
        if "." not in name and inspect.isclass(thing) and name in inspect.signature(thing).parameters:
            return f"{key}.{name} is missing, which {value} needs; add --{key}.{name}=VALUE"
    needing = [] if "." in name or name in _MODULES_OF_KEY else _classes_that_need(name)
    if needing:
        return f"{name} is missing, which {' or '.join(needing)} needs; write it under its init_args"
    shipped = "experiment_digits.yaml" if arguments and arguments[0] == "experiment" else "digits.yaml"
    return f"{name} is missing; add --{name}=VALUE, or begin with a shipped config: --config {shipped}"


def _classes_that_need(parameter: str) -> list[str]:
    """Public classes that cannot be made without ``parameter``."""
    classes = {name: thing for name, thing in _public_objects("").items() if inspect.isclass(thing)}
    needed = {name: inspect.signature(thing).parameters.get(parameter) for name, thing in classes.items()}
    return [name for name, given in needed.items() if given is not None and given.default is given.empty]


def _other_lightning(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Import path (?:(\S+) )?does not correspond to a subclass of (\w+)", message)
    value = found if found and found[1] else re.search(r"Given value: (\S+)", message)
    if found is None or value is None:
        return None
    key = _key(message, arguments)
    module, _, name = value[1].rpartition(".")
    bases = getattr(getattr(sys.modules.get(module), name, None), "__mro__", ())
    if any(base.__module__.startswith("lightning.pytorch.") and base.__name__ == found[2] for base in bases):
        return (
            f"{key}: {value[1]} is a {found[2]} of lightning.pytorch, and this command runs pytorch_lightning; "
            "import pytorch_lightning there"
        )
    return f"{key} must be the class path of a {found[2]}, got {value[1]}"


def _no_such_attribute(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message)
    if found is None:
        return None
    near = _suggestion(found[2], vars(sys.modules[found[1]])) if found[1] in sys.modules else ""
    return f"{_key(message, arguments)}: there is no {found[2]} in {found[1]}{near}"


def _key_of_function(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Dict must include a class_path .* got NestedArg\(key='([\w.]+)'", message)
    if found is None:
        return None
    key = _typed(found[1], arguments)
    return f"there is no key {key}: a function takes no keys; name a class, or a function of your own that sets it"


_RULES = (
    _refusal,
    _unknown_option,
    _missing_key,
    _other_lightning,
    _ambiguous_class,
    _unknown_class,
    _no_such_attribute,
    _key_of_function,
    _unknown_parameter,
    _wrong_type,
)


def _key(message: str, arguments: Sequence[str]) -> str:
    """The key that a message is about, the whole of it where it was typed."""
    nested = re.findall(r"NestedArg\(key='([\w.]+)'", message)
    named = re.findall(r'Parser key "([\w.]+)"', message)
    if nested:
        return _typed(nested[-1], arguments)
    return _typed(named[-1], arguments) if named else "an argument"


def _typed(key: str, arguments: Sequence[str]) -> str:
    """The typed option that ends in ``key``, else ``key``."""
    typed = (argument.partition("=")[0].lstrip("-").rstrip("+") for argument in arguments if argument.startswith("--"))
    return next((option for option in typed if option == key or option.endswith(f".{key}")), key)


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = [option.lstrip("-") for option in nearest_names(name, known)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _public_objects(key: str) -> dict[str, Any]:
    """What the package offers under the part of the config that ``key`` belongs to."""
    every = tuple(dict.fromkeys(name for names in _MODULES_OF_KEY.values() for name in names))
    modules = [
        importlib.import_module(f"lightning_poison.{name}")
        for name in _MODULES_OF_KEY.get(key.partition(".")[0], every)
    ]
    return {name: getattr(module, name) for module in modules for name in module.__all__}
