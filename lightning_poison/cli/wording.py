"""From the many lines of a parser's or loader's message to the one that helps.

The patterns are those of jsonargparse's messages, which change with its releases. What none of them matches, or makes a
rule stumble, is told in its own first words (:func:`plain_line`): a line less helpful, and never a traceback.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import LightningModule
from torch import nn

from lightning_poison import poisons
from lightning_poison.cli.configs import find_config, read_config
from lightning_poison.errors import UserError
from lightning_poison.experiments import VictimPlan
from lightning_poison.functional.checks import nearest_names

__all__ = [
    "checkpoint_line",
    "instantiation_line",
    "is_raised_by_parser",
    "one_line",
    "plain_line",
    "twins_line",
    "typed",
]

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
_LONG = 300  # characters that are still read as one line


# --- lines for the command line ---------------------------------------------------------------------------------------


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
        >>> from lightning_poison.poisons import LabelNoise
        >>> one_line("Option 'per_class' is not accepted", ["--rate", "--classes+"], [], LabelNoise)
        'there is no key per_class; did you mean classes? (LabelNoise takes rate, classes)'
        >>> one_line('Parser key "poison":\n  Expected a dot import path string: Medoids', [], ["--poison=Medoids"])
        'poison cannot be Medoids, which only chooses points; write --poison.select=Medoids'
    """
    try:
        report = _Report(_of_its_own_type(message), tuple(options), tuple(arguments), owner)
        lines = (rule(report) for rule in _RULES)
        found = next((line for line in lines if line), None)
    except Exception:  # noqa: BLE001  # the message of another release is no reason for a traceback
        found = None
    return found or plain_line(message)


def plain_line(message: str) -> str:
    r"""A message in its own words: whole where that is one line's length, else up to its first statement.

    Example:
        >>> plain_line("Expected a <class 'int'>.\n  Got value: x")
        'Expected a int. Got value: x'
        >>> plain_line('Parser key "eps":\n  Does not validate against any type.\n' + "  - and much more\n" * 30)
        'Parser key "eps": Does not validate against any type.'
    """
    lines = [" ".join(line.split()) for line in re.sub(r"<class '([\w.]+)'>", r"\1", message).splitlines()]
    lines = [line for line in lines if line and "Expected a path but" not in line]  # any value might have been a file
    whole = " ".join(lines)
    if len(whole) <= _LONG:
        return whole or "the parser refuses this, and does not say why"
    statement = next((number for number, line in enumerate(lines) if not line.endswith(":")), 0)
    return " ".join(lines[: statement + 1])


def instantiation_line(error: BaseException) -> str | None:
    """The line of what refused its arguments while the config was turned into objects; None: the mistake is ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if "Errors:" in str(error):
        lines = (line.strip().removeprefix("- ") for line in str(error).splitlines())
        own = [line for line in lines if not _PARSERS_OWN.match(line)]
        if own:
            return own[0]
    return one_line(str(error)) if is_raised_by_parser(error) else None


def is_raised_by_parser(error: BaseException) -> bool:
    """Whether the statement that raised stands in jsonargparse, which checks what users write."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = str(trace.tb_frame.f_globals.get("__name__")) if trace is not None else ""
    return name.partition(".")[0] == "jsonargparse"


def checkpoint_line(error: Exception) -> str | None:
    """The line for a checkpoint that does not fit, or None where the error is about something else."""
    text = str(error)
    if "Error(s) in loading state_dict" not in text:
        return None
    return (
        f"the checkpoint does not fit the victim{_mismatch(text)}; "
        "use the network, data and poison that it was trained with, as in the config.yaml beside it"
    )


def twins_line(error: Exception) -> str | None:
    """The line for two callbacks that a checkpoint couldn't tell apart, or None where it's another error.

    Example:
        >>> twins_line(RuntimeError("Found more than one stateful callback of type `AdversarialPaths`. In ..."))
        'trainer.callbacks hold two equal AdversarialPaths; leave one out, or give each its own name'
    """
    found = re.search(r"more than one stateful callback of type `(\w+)`", str(error))
    return f"trainer.callbacks hold two equal {found[1]}; leave one out, or give each its own name" if found else None


def typed(key: str, arguments: Sequence[str]) -> str:
    """The typed option that ends in ``key``, else ``key``.

    Example:
        >>> typed("per_class", ["fit", "--poison.select.per_class=3"])
        'poison.select.per_class'
    """
    options = (argument.partition("=")[0].lstrip("-").rstrip("+") for argument in arguments if argument[:2] == "--")
    return next((option for option in options if option == key or option.endswith(f".{key}")), key)


def _mismatch(text: str) -> str:
    sizes = re.search(r"size mismatch for ([\w.]+): .*?Size\((\[[\d, ]*\])\).*?Size\((\[[\d, ]*\])\)", text, re.DOTALL)
    if sizes:
        return f" ({sizes[1]} is {sizes[2]} in the file and {sizes[3]} in the victim)"
    key = re.search(r"(?:Missing|Unexpected) key\(s\) in state_dict: \"([\w.]+)\"", text)
    return f" ({key[1]} is in one of them only)" if key else ""


# --- the parser's report ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Report:
    """What the parser said, and of whose arguments."""

    message: str
    options: tuple[str, ...]
    arguments: tuple[str, ...]
    owner: Callable[..., Any] | None

    @property
    def key(self) -> str:
        """What the message is about, the whole of it where it was typed."""
        nested = re.findall(r"NestedArg\(key='([\w.]+)'", self.message)
        named = re.findall(r'Parser key "([\w.]+)"', self.message)
        if nested:
            return typed(nested[-1], self.arguments)
        return typed(named[-1], self.arguments) if named else "an argument"

    @property
    def names(self) -> list[str]:
        """The options that a config can set."""
        words = dict.fromkeys(option.lstrip("-").rstrip("+") for option in self.options if option[:2] == "--")
        return [word for word in words if not re.match(r"(.*\.)?help$|config$|print_", word)]

    def find(self, pattern: str) -> str | None:
        """The first group of the first match."""
        found = re.search(pattern, self.message)
        return found[1] if found else None

    def entry(self, section: str, is_it: Callable[[Any], bool]) -> str:
        """Such as ``strategies.random`` for the first entry of a section that is meant; empty where none is."""
        entries: dict[str, Any] = {}
        for argument, following in zip(self.arguments, [*self.arguments, ""][1:], strict=True):
            option, equals, value = argument.partition("=")
            value = value if equals else following
            if option in ("-c", "--config"):
                entries.update(_entries_in_file(value, section))
            first, _, rest = option.partition(".")
            first = first.removeprefix("--") if first.startswith("--") else ""
            name, _, key = rest.partition(".")
            if first == section and key:
                known = entries.get(name)
                entries[name] = {**(known if isinstance(known, dict) else {}), key.partition(".")[0]: value}
            elif first == section and name:
                entries[name] = value
        return next((f"{section}.{name}" for name, value in entries.items() if is_it(value)), "")

    def typed_for_owner(self) -> str:
        """The typed option that names the class whose arguments are read; empty: it stands in a file."""
        for argument in self.arguments:
            key, _, value = argument.lstrip("-").partition("=")
            if value.rpartition(".")[2] == self.owner_name:
                return key.rstrip("+")
        return ""

    @property
    def owner_name(self) -> str:
        """The class whose arguments are read."""
        return getattr(self.owner, "__name__", "the command")


def _entries_in_file(name: str, section: str) -> dict[str, Any]:
    try:
        entries = read_config(find_config(name)).get(section)
    except (UserError, OSError):  # reported elsewhere
        return {}
    return {str(key): value for key, value in entries.items()} if isinstance(entries, dict) else {}


def _of_its_own_type(message: str) -> str:
    """Without what a union's other types say of a class that one of them takes."""
    subtypes = re.findall(r"<class '([\w.]+)'>", next(iter(re.findall(r"Subtypes: .*", message)), ""))
    kept = []
    for line in message.splitlines(keepends=True):
        found = re.search(r"Import path ([\w.]+)\.(\w+) does not correspond to a subclass of \w+", line)
        bases = _bases(*found.groups()) if found else ()
        if not {f"{base.__module__}.{base.__qualname__}" for base in bases} & set(subtypes):
            kept.append(line)
    return "".join(kept)


def _bases(module: str, name: str) -> tuple[type, ...]:
    return getattr(getattr(sys.modules.get(module), name, None), "__mro__", ())


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = [option.lstrip("-") for option in nearest_names(name, known)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


# --- keys -------------------------------------------------------------------------------------------------------------


def _network_without_classes(report: _Report) -> str | None:
    """A network whose first argument is left to the victim and is not the number of classes."""
    owner = report.owner
    if not inspect.isclass(owner) or not issubclass(owner, nn.Module) or issubclass(owner, LightningModule):
        return None
    if report.find(r"(Option '[\w.+]+' is not accepted|the following arguments are required: [\w.]+)") is None:
        return None
    parameters = inspect.signature(owner).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if takes_any or "num_classes" in parameters or next(iter(parameters), "num_classes") in report.names:
        return None

    def has_it(victim: Any) -> bool:
        net = victim.get("net") if isinstance(victim, dict) else None
        path = net.get("class_path") if isinstance(net, dict) else net
        return str(path).rpartition(".")[2] == owner.__name__

    entry = report.entry("victims", has_it)
    key = report.typed_for_owner() or (f"{entry}.net" if entry else "net")
    return (
        f"{key} must take num_classes, got {owner.__name__}, which does not; "
        "give its constructor an argument num_classes, or name a function of num_classes that makes it"
    )


def _key_not_accepted(report: _Report) -> str | None:
    key, names = report.find(r"Option '([\w.+]+)' is not accepted"), report.names
    if key is None:
        return None
    if key == "class_path":  # it is there, and something else is beside it
        return "a class_path may have only init_args beside it; write the arguments of the class under init_args"
    if report.owner is None:
        return f"there is no key {typed(key, report.arguments)}{_suggestion(key.rpartition('.')[2], names)}"
    first = key.partition(".")[0]
    key = key if first in names else first  # the name is wrong, not what stands below it
    near = _suggestion(key.rpartition(".")[2], [*names, "class_path", "init_args"])
    taken = f"{report.owner_name} takes {', '.join(name for name in names if '.' not in name) or 'no arguments'}"
    near = f"{near} ({taken})" if near else f"; {taken}"
    return f"{_entry_with(key, report)}there is no key {typed(key, report.arguments)}{near}"


def _entry_with(key: str, report: _Report) -> str:
    """Which strategy or victim of an experiment gives a class this key, for the beginning of a line; else empty."""

    def has_it(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        named = str(value.get("class_path")).rpartition(".")[2] == report.owner_name
        given = value.get("init_args")
        return (named and isinstance(given, dict) and key in given) or any(map(has_it, value.values()))

    if typed(key, report.arguments) != key:
        return ""
    return next((f"{entry}: " for part in ("strategies", "victims") if (entry := report.entry(part, has_it))), "")


def _argument_missing(report: _Report) -> str | None:
    name = report.find(r"the following arguments are required: ([\w.]+)")
    if name is None:
        return None
    if report.owner is VictimPlan:
        key = report.entry("victims", lambda value: isinstance(value, dict) and name not in value) or "victims.NAME"
        return f"{key}.{name} is missing, which a victim needs; write {name}: MLP, or a class_path with init_args"
    if report.owner is not None:
        key = report.typed_for_owner()
        remedy = f"add --{key}.{name}=VALUE" if key else "write it under its init_args"
        return f"{f'{key}.' if key else ''}{name} is missing, which {report.owner_name} needs; {remedy}"
    command = next(iter(report.arguments), "")
    name = name.removeprefix(f"{command}.")
    shipped = "experiment_digits.yaml" if command == "experiment" else "digits.yaml"
    return f"{name} is missing; add --{name}=VALUE, or begin with a shipped config: --config {shipped}"


def _word_for_keys(report: _Report) -> str | None:
    found = re.search(r'Parser key "(\w+)":\s+Unable to load config (.+)', report.message)
    if found is None:
        return None
    keys = [name.partition(".")[2] for name in report.names if name.startswith(f"{found[1]}.")]
    where, value = report.key, found[2].strip("'\" ")
    if report.owner is VictimPlan:
        entry = report.entry("victims", lambda given: isinstance(given, dict) and given.get(where) == value)
        where = f"{entry or 'victims.NAME'}.{found[1]}"
    return f"{where} must be keys with values, got {value}; its keys are {', '.join(keys)}"


def _unknown_option(report: _Report) -> str | None:
    name = report.find(r"unrecognized arguments: (\S+)")
    if name is not None:
        name = typed(name.partition("=")[0].lstrip("-"), report.arguments)
    else:
        name = report.find(r"(?:Key|does not accept (?:nested )?(?:key|option)) ['\"]([\w.+]+)['\"]")
    return None if name is None else f"there is no key {name}{_suggestion(f'--{name}', report.options)}"


def _key_of_function(report: _Report) -> str | None:
    key = report.find(r"Dict must include a class_path .* got NestedArg\(key='([\w.]+)'")
    if key is None:
        return None
    key = typed(key, report.arguments)
    return f"there is no key {key}: a function takes no keys; name a class, or a function of your own that sets it"


# --- poisons, strategies and victims ----------------------------------------------------------------------------------


def _section(report: _Report) -> str | None:
    message = report.message
    section = re.match(r'Parser key "(poison|strategies|victims)":', message)
    value = re.search(r"(?:Given value|Got value|import path string): (.+)", message.replace("Given value type", ""))
    value = value or re.search(r"'([\w.]+)' is not accepted as class_path", message)
    if section is None or value is None:
        return None
    key, given = section[1], value[1].strip()
    if key != "poison" and "Expected a <class 'dict'>" in message:
        return f"{key} must be names with what they stand for, got {given}; write {key}: {{NAME: ...}}"
    named = re.search(r"'class_path': '([\w.]+)'", given)
    name = named[1] if named else given

    def is_it(entry: Any) -> bool:
        path = entry.get("class_path", entry) if isinstance(entry, dict) else entry
        return name == str(path) or str(entry) == given

    if key != "poison":
        key = report.entry(key, is_it) or f"{key}.NAME"
    return _victim_line(key, name) if section[1] == "victims" else _poison_line(key, name, report)


def _victim_line(key: str, name: str) -> str:
    name = {"None": "null"}.get(name, name)
    net = name if re.fullmatch(r"[A-Z]\w*|[a-z_]\w*(\.\w+)+", name) and name not in ("True", "False") else "MLP"
    return f"{key} must have a net and may have a recipe, got {name}; write the network under net, as in {{net: {net}}}"


def _poison_line(key: str, name: str, report: _Report) -> str | None:
    thing = getattr(poisons, name.rpartition(".")[2], None)
    if inspect.isclass(thing) and issubclass(thing, poisons.Selector):
        is_typed = any(argument.partition("=")[0] == f"--{key}" for argument in report.arguments)
        remedy = f"write --{key}.select={name}" if is_typed else f"put it under select, as in {{select: {name}}}"
        return f"{key} cannot be {name}, which only chooses points; {remedy}"
    if "Not a valid subclass of" not in report.message:
        return None
    return (
        f"{key} must be null or a poison, got {name}; "
        "write a selector, as in {select: RandomPoints}, or a class_path with init_args"
    )


# --- values and classes -----------------------------------------------------------------------------------------------


def _refusal(report: _Report) -> str | None:
    own = report.find(r"Not of type \w+: (.+)")
    if own:
        return f"{report.key}: {own.strip()}"
    return report.find(r"((?:base in .+?|there is no config|--config .+ must (?:be a YAML file|hold KEY)).+)")


def _abstract(report: _Report) -> str | None:
    name = report.find(r"Expected an instantiatable class, but [\w.]*?(\w+) is abstract")
    if name is None:
        return None
    what = f"must name {_with_article(name)} by its class_path"
    return f"{report.key} {what}; write its arguments under init_args, and nothing else beside them"


def _class_of_another_kind(report: _Report) -> str | None:
    found = re.search(r"Import path (?:(\S+) )?does not correspond to a subclass of (\w+)", report.message)
    value = (found[1] or report.find(r"Given value: (\S+)")) if found else None
    if found is None or value is None:
        return None
    module, _, name = value.rpartition(".")
    bases = _bases(module, name)
    if any(base.__module__.startswith("lightning.pytorch.") and base.__name__ == found[2] for base in bases):
        return (
            f"{report.key}: {value} is a {found[2]} of lightning.pytorch, and this command runs pytorch_lightning; "
            "import pytorch_lightning there"
        )
    return f"{report.key} must be the class path of {_with_article(found[2])}, got {value}"


def _ambiguous_class(report: _Report) -> str | None:
    found = re.search(r"Multiple subclasses with name (\w+)\. .*?: ([\w.<>, ]+)\.\s", report.message)
    return f"{report.key}: there are several classes {found[1]}; write one of {found[2]}" if found else None


def _unknown_class(report: _Report) -> str | None:
    path = report.find(r"Expected a dot import path string: (\S+)")
    if path is None and "Option" not in report.message:
        path = report.find(r"(?:No module named|Problem with given class_path|Import path) '([\w.]+)'")
    if path is None:
        return None
    key = report.key
    module, _, wanted = path.rpartition(".")
    if module == "torchattacks" and module in sys.modules:
        near, known = _suggestion(wanted, sys.modules[module].__all__), sys.modules[module].__version__
        more = "" if near else "; if a newer one has it: pip install --no-deps torchattacks==3.5.1"
        return f"{key}: there is no class {path} in torchattacks {known}{near}{more}"
    names = [name for name, thing in _public_objects(key).items() if inspect.isclass(thing)]
    if wanted in names:
        return f"{key} cannot be {wanted}, which is a class of another kind"
    return f"{key}: there is no class {path}{_suggestion(wanted, names)}"


def _public_objects(key: str) -> dict[str, Any]:
    """What the package offers under the part of the config that ``key`` belongs to."""
    every = tuple(dict.fromkeys(name for names in _MODULES_OF_KEY.values() for name in names))
    modules = [
        importlib.import_module(f"lightning_poison.{name}")
        for name in _MODULES_OF_KEY.get(key.partition(".")[0], every)
    ]
    return {name: getattr(module, name) for module in modules for name in module.__all__}


def _no_such_attribute(report: _Report) -> str | None:
    found = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", report.message)
    if found is None:
        return None
    near = _suggestion(found[2], vars(sys.modules[found[1]])) if found[1] in sys.modules else ""
    return f"{report.key}: there is no {found[2]} in {found[1]}{near}"


def _wrong_type(report: _Report) -> str | None:
    expected = re.findall(r"Expected an? (?:<class '([\w.]+)'>|typing\.Literal\[([^\]]+)\])", report.message)
    classes = re.findall(r"Not a valid subclass of (\w+)", report.message)
    if not expected and not classes:
        return None
    words = [word for name, choices in expected for word in [name, *re.findall(r"[\w.-]+", choices)] if word]
    names = list(dict.fromkeys({"NoneType": "null"}.get(word, word.rpartition(".")[2]) for word in words))
    names = [*(f"the class path of {_with_article(name)}" for name in dict.fromkeys(classes)), *names]
    given = report.find(r"val='([^']*)'") or report.find(r"(?:Given|Got) value: (.+)") or "something else"
    given, remedy = given.strip(), ""
    if "float" in names and re.fullmatch(r"[+-]?\.?(nan|inf|infinity)", given.lower()):
        names[names.index("float")], remedy = "a finite number", "; write a number"
    elif "list" in names and re.fullmatch(r"[\d.e/+-]+", given):
        remedy = f"; write [{given}]"
    allowed = " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return f"{report.key} must be {allowed}, got {given}{remedy}"


_RULES: tuple[Callable[[_Report], str | None], ...] = (
    _network_without_classes,
    _key_not_accepted,
    _argument_missing,
    _word_for_keys,
    _section,
    _refusal,
    _abstract,
    _unknown_option,
    _class_of_another_kind,
    _ambiguous_class,
    _unknown_class,
    _no_such_attribute,
    _key_of_function,
    _wrong_type,
)
