"""The argument parser: shipped configs by bare name, whole keys only, errors of one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import jsonargparse
import yaml  # type: ignore[import-untyped]  # ships no types
from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings  # type: ignore[attr-defined]  # public
from pytorch_lightning.cli import LightningArgumentParser

from lightning_poison.cli.configs import find_config, text_with_bases
from lightning_poison.cli.wording import one_line, typed
from lightning_poison.errors import UserError

__all__ = ["ConfigFile", "Parser"]

MODE = "omegaconf+"

set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
ArgumentParser(parser_mode=MODE).parse_string("{}")  # the mode has its loader from the first use on


def take_none_for_null(library: Any = jsonargparse) -> None:
    """Let the parser read the null of a key of several levels, which arrives as the text ``None``.

    Args:
        library: jsonargparse; one without ways to exchange the loader is left as it is.
    """
    try:
        load = library.get_loader(MODE)
        library.set_loader(
            MODE, lambda text: None if text.strip() == "None" else load(text), exceptions=(yaml.YAMLError,)
        )
    except (AttributeError, KeyError, TypeError, ValueError):  # of another release
        return


take_none_for_null()


class ConfigFile(ActionConfigFile):
    """``--config NAME``: a file, or a shipped config, with what it builds on."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Find the file, then read it."""
        try:
            path = find_config(str(values))
            text = text_with_bases(path)
        except UserError as error:
            raise TypeError(str(error)) from error
        with nullcontext() if text is None else _relative_to(path.parent):  # as the parser does where it reads a file
            super().__call__(parser, cfg, text or str(path), option_string)  # type: ignore[no-untyped-call]  # jsonargparse's own


@contextmanager
def _relative_to(folder: Path) -> Iterator[None]:
    """Relative paths are those of a folder meanwhile."""
    current = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(current)


class Parser(LightningArgumentParser):
    """A parser in OmegaConf mode that takes no abbreviations and reports an error in one line.

    Interpolations (``${trainer.max_epochs}``) are resolved after all files and overrides are merged.
    """

    arguments: ClassVar[Sequence[str]] = ()
    """What was typed, so that an error can name the whole key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("parser_mode", MODE)
        kwargs["allow_abbrev"] = False
        kwargs.setdefault("prog", "lightning-poison")
        super().__init__(*args, **kwargs)
        self._owner: Callable[..., Any] | None = None

    def add_class_arguments(self, theclass: Any, nested_key: str | None = None, **kwargs: Any) -> Any:
        """Remember whose arguments these are, so that an error can name the class."""
        self._owner = self._owner if nested_key else theclass
        return super().add_class_arguments(theclass, nested_key, **kwargs)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help; of a class that a typed key names, with the whole of that key before its arguments."""
        found = re.match(r"Help for --([\w.]+)\.help=", self.description or "")
        if found:
            key = typed(f"{found[1]}.help", self.arguments).removesuffix(".help")
            self.description = str(self.description).replace(f"--{found[1]}", f"--{key}", 1)
            for action in self._actions:
                action.option_strings = [
                    re.sub(rf"^--{re.escape(found[1])}\b", f"--{key}", option) for option in action.option_strings
                ]
        return str(super().format_help(*args, **kwargs))

    def error(self, message: str, ex: Exception | None = None, **_others: Any) -> NoReturn:
        """Print one line and exit with code 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        options = [option for action in getattr(parser, "_actions", ()) for option in action.option_strings]
        owner = None if self.exit_on_error else self._owner  # the parser inside this one that reads a class
        line = one_line(str(message), options, self.arguments, owner)
        if self.arguments and self.arguments[0].startswith("-"):
            line = line.rstrip("?") + "; write the command first: lightning-poison fit --config FILE"
        print(f"lightning-poison: error: {line}", file=sys.stderr)
        sys.exit(2)
