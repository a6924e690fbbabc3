"""What the messages of another release of jsonargparse become: a plain line and exit code 2, never a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_poison.cli import wording
from lightning_poison.cli.app import PoisonCLI
from lightning_poison.cli.parser import Parser, take_none_for_null

MISTAKES = [
    ["--trainer.max_epochs=abc"],
    ["--trainer.max_epoch=3"],
    ["--poison=Medoids"],
    ["--poison.select=LabelNoise", "--poison.select.per_class=2"],
    ["--poison.relabel=ToClass"],
    ["--model.net=PoolCN"],
]
REWORDINGS: list[Callable[[str], str]] = [
    str.upper,
    lambda message: re.sub(r"[^\w\s]", "", message),
    lambda message: "Invalid input:\n  " + "\n  and then ".join(message[::-1].split()),
    lambda message: "",
]


def raised_in(module: str, error: Exception) -> Callable[..., Any]:
    """A function of a module that raises."""
    names: dict[str, Any] = {"__name__": module, "error": error}
    exec("def function(*arguments, **keywords):\n    raise error", names)
    return names["function"]


@pytest.mark.parametrize("reword", REWORDINGS)
@pytest.mark.parametrize("arguments", MISTAKES)
def test_messages_that_no_rule_knows(refused, monkeypatch, arguments: list[str], reword: Callable[[str], str]) -> None:
    error = Parser.error
    monkeypatch.setattr(Parser, "error", lambda self, message, ex=None: error(self, reword(message), ex, newer=True))
    line = refused("fit", "--config", "digits.yaml", *arguments)
    assert len("lightning-poison: error: ") < len(line) < 400


def test_a_rule_that_stumbles_is_no_traceback(refused, monkeypatch) -> None:
    monkeypatch.setattr(wording, "_RULES", (raised_in("anywhere", AttributeError("NestedArg")),))
    line = refused("fit", "--config", "digits.yaml", "--trainer.max_epochs=abc")
    assert "trainer.max_epochs" in line
    assert "abc" in line


def test_errors_of_the_parser_that_it_reports_no_more(refused, monkeypatch) -> None:
    monkeypatch.setattr(PoisonCLI, "parse_arguments", raised_in("jsonargparse._new", ValueError("said\n  otherwise")))
    assert refused("fit", "--config", "digits.yaml") == "lightning-poison: error: said otherwise"


def test_a_parser_that_lightning_does_not_know(refused, monkeypatch) -> None:
    owner = next(base for base in Parser.__mro__ if "add_instantiator" in vars(base))
    monkeypatch.delattr(owner, "add_instantiator")
    line = refused("fit", "--config", "digits.yaml")
    assert "has no add_instantiator, which the command line of pytorch_lightning" in line
    assert line.endswith("pip install 'jsonargparse<5'")


def test_our_own_errors_stay_tracebacks(run_cli, monkeypatch) -> None:
    monkeypatch.setattr(PoisonCLI, "parse_arguments", raised_in("lightning_poison.cli.app", ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        run_cli("fit", "--config", "digits.yaml")


@pytest.mark.parametrize("module", ["jsonargparse._new", "somebodys_net"])
def test_a_refusal_while_objects_are_made(module: str) -> None:
    with pytest.raises(TypeError) as caught:
        raised_in(module, TypeError("no such thing"))()
    line = wording.instantiation_line(caught.value)
    assert line == ("no such thing" if module.startswith("jsonargparse") else None)


def test_a_library_without_loaders_to_exchange_is_left_alone() -> None:
    take_none_for_null(SimpleNamespace())
    set_loader = raised_in("jsonargparse", TypeError("unexpected keyword"))
    take_none_for_null(SimpleNamespace(get_loader=lambda mode: str, set_loader=set_loader))


def test_the_first_statement_of_many_lines() -> None:
    many = "\n".join(f"  - Not of type number {number}: because of something" for number in range(30))
    assert wording.plain_line(f'Parser key "a.b":\n{many}') == (
        'Parser key "a.b": - Not of type number 0: because of something'
    )
