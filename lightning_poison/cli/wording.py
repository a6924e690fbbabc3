"""From the many lines of a parser's or loader's message to the one that helps."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lightning_poison.cli.class_wording import argument_line
from lightning_poison.cli.keys import key_of, suggestion, typed
from lightning_poison.cli.section_wording import section_line
from lightning_poison.errors import UserError

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


def one_line(
    message: str,
    options: Iterable[str] = (),
    arguments: Sequence[str] = (),
    owner: Callable[..., Any] | None = None,
) -> str:
    r"""The essence of a message in one line, with the nearest names for a misspelt one.

    Args:
        message: as raised, of any number of lines.
        options: of the command, such as ``--trainer.max_epochs``, or of ``owner``, to suggest from.
        arguments: what was typed, to name the whole key.
        owner: the class or function of the config whose arguments were read; None: the command's own were.

    Example:
        >>> one_line("Parser key \"seed_everything\":\n  Expected a <class 'int'>. Got value: x")
        'seed_everything must be int, got x'
        >>> one_line("- Multiple subclasses with name Net. Give the full class path ...: a.Net, b.Net.\n")
        'an argument: there are several classes Net; write one of a.Net, b.Net'
    """
    message, options = _of_its_own_type(message), list(options)
    line = argument_line(message, options, arguments, owner) or section_line(message, arguments)
    if line is not None:
        return line
    for rule in _RULES:
        line = rule(message, options, arguments)
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
        return f"{key_of(message, arguments)}: {found[1].strip()}"
    found = re.search(r"(?:there is no config|--config .+ must (?:be a YAML file|hold KEY)).+", message)
    return found[0].strip() if found else None


def _unknown_option(message: str, options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"unrecognized arguments: (.+)", message)
    if found:
        name = typed(found[1].split()[0].partition("=")[0].lstrip("-"), arguments)
        return f"there is no key {name}{suggestion(f'--{name}', options)}"
    found = re.search(r"(?:Key|does not accept (?:nested )?(?:key|option)) ['\"]([\w.+]+)['\"]", message)
    return f"there is no key {found[1]}{suggestion(f'--{found[1]}', options)}" if found else None


def _ambiguous_class(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Multiple subclasses with name (\w+)\. .*?: ([\w.<>, ]+)\.\s", message)
    if found is None:
        return None
    return f"{key_of(message, arguments)}: there are several classes {found[1]}; write one of {found[2]}"


def _unknown_class(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)", message)
    if found is None and "Option" not in message:
        found = re.search(r"(?:No module named|Problem with given class_path|Import path) '([\w.]+)'", message)
    if found is None:
        return None
    key = key_of(message, arguments)
    module, _, wanted = found[1].rpartition(".")
    if module == "torchattacks" and module in sys.modules:
        near, known = suggestion(wanted, sys.modules[module].__all__), sys.modules[module].__version__
        more = "" if near else "; if a newer one has it: pip install --no-deps torchattacks==3.5.1"
        return f"{key}: there is no class {found[1]} in torchattacks {known}{near}{more}"
    names = [name for name, thing in _public_objects(key).items() if inspect.isclass(thing)]
    if wanted in names:
        return f"{key} cannot be {wanted}, which is a class of another kind"
    return f"{key}: there is no class {found[1]}{suggestion(wanted, names)}"


def _wrong_type(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    expected = re.findall(r"Expected an? (?:<class '([\w.]+)'>|typing\.Literal\[([^\]]+)\])", message)
    classes = re.findall(r"Not a valid subclass of (\w+)", message)
    if not expected and not classes:
        return None
    value = re.search(r"val='([^']*)'", message) or re.search(r"(?:Given|Got) value: (.+)", message)
    words = [word for name, choices in expected for word in [name, *re.findall(r"[\w.-]+", choices)] if word]
    names = list(dict.fromkeys({"NoneType": "null"}.get(word, word.rpartition(".")[2]) for word in words))
    names = [*(f"the class path of {_with_article(name)}" for name in dict.fromkeys(classes)), *names]
    given = value[1].strip() if value else "something else"
    remedy = ""
    if "float" in names and re.fullmatch(r"[+-]?\.?(nan|inf|infinity)", given.lower()):
        names[names.index("float")], remedy = "a finite number", "; write a number"
    elif "list" in names and re.fullmatch(r"[\d.e/+-]+", given):
        remedy = f"; write [{given}]"
    allowed = " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return f"{key_of(message, arguments)} must be {allowed}, got {given}{remedy}"


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def _missing_key(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"the following arguments are required: ([\w.]+)", message)
    if found is None:
        return None
    name = found[1].removeprefix(f"{arguments[0]}." if arguments else "")
    shipped = "experiment_digits.yaml" if arguments and arguments[0] == "experiment" else "digits.yaml"
    return f"{name} is missing; add --{name}=VALUE, or begin with a shipped config: --config {shipped}"


def _other_lightning(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Import path (?:(\S+) )?does not correspond to a subclass of (\w+)", message)
    value = found if found and found[1] else re.search(r"Given value: (\S+)", message)
    if found is None or value is None:
        return None
    key = key_of(message, arguments)
    module, _, name = value[1].rpartition(".")
    bases = getattr(getattr(sys.modules.get(module), name, None), "__mro__", ())
    if any(base.__module__.startswith("lightning.pytorch.") and base.__name__ == found[2] for base in bases):
        return (
            f"{key}: {value[1]} is a {found[2]} of lightning.pytorch, and this command runs pytorch_lightning; "
            "import pytorch_lightning there"
        )
    return f"{key} must be the class path of {_with_article(found[2])}, got {value[1]}"


def _no_such_attribute(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message)
    if found is None:
        return None
    near = suggestion(found[2], vars(sys.modules[found[1]])) if found[1] in sys.modules else ""
    return f"{key_of(message, arguments)}: there is no {found[2]} in {found[1]}{near}"


def _key_of_function(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Dict must include a class_path .* got NestedArg\(key='([\w.]+)'", message)
    if found is None:
        return None
    key = typed(found[1], arguments)
    return f"there is no key {key}: a function takes no keys; name a class, or a function of your own that sets it"


def _abstract(message: str, _options: list[str], arguments: Sequence[str]) -> str | None:
    found = re.search(r"Expected an instantiatable class, but [\w.]*?(\w+) is abstract", message)
    if found is None:
        return None
    what = f"must name {_with_article(found[1])} by its class_path"
    return f"{key_of(message, arguments)} {what}; write its arguments under init_args, and nothing else beside them"


_RULES = (
    _refusal,
    _abstract,
    _unknown_option,
    _missing_key,
    _other_lightning,
    _ambiguous_class,
    _unknown_class,
    _no_such_attribute,
    _key_of_function,
    _wrong_type,
)


def _public_objects(key: str) -> dict[str, Any]:
    """What the package offers under the part of the config that ``key`` belongs to."""
    every = tuple(dict.fromkeys(name for names in _MODULES_OF_KEY.values() for name in names))
    modules = [
        importlib.import_module(f"lightning_poison.{name}")
        for name in _MODULES_OF_KEY.get(key.partition(".")[0], every)
    ]
    return {name: getattr(module, name) for module in modules for name in module.__all__}
