"""``lightning-poison experiment``: strategies against victims over seeds, from a config."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Imported for their names: jsonargparse resolves short class names among the classes that are loaded.
import lightning_poison.attacks
import lightning_poison.datamodules
import lightning_poison.nets
import lightning_poison.poisons  # noqa: F401  # see above
from lightning_poison.cli.parser import ConfigFile, Parser
from lightning_poison.cli.wording import instantiation_line
from lightning_poison.errors import UserError
from lightning_poison.experiments import Experiment
from lightning_poison.functional.files import write_atomically

__all__ = ["run_experiment"]


def run_experiment(arguments: Sequence[str]) -> None:
    """Parse, run what is not done yet, print the table and where everything is.

    Args:
        arguments: as typed after ``experiment``.

    Raises:
        UserError: a class refused its arguments, or the parts do not fit each other.
    """
    Parser.arguments = ["experiment", *arguments]
    parser = Parser(prog="lightning-poison experiment", description="Compare strategies over victims and seeds.")
    parser.add_argument(
        "-c", "--config", action=ConfigFile, help="A YAML file, or the name of a shipped one; several are merged."
    )
    parser.add_class_arguments(Experiment)
    config = parser.parse_args(list(arguments))
    experiment = _made(parser, config)
    outcome = experiment.run()
    text = parser.dump(config, skip_none=False)
    folder = Path(experiment.folder)
    write_atomically(folder / "config.yaml", text)
    print(f"{outcome.markdown}\n{folder}")


def _made(parser: Parser, config: Any) -> Experiment:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*")  # the parser's own deprecations
        try:
            arguments = parser.instantiate_classes(config)
        except (TypeError, ValueError) as error:
            line = instantiation_line(error)
            if line is None:
                raise
            raise UserError(line) from error
    return Experiment(**{name: value for name, value in vars(arguments).items() if name != "config"})
