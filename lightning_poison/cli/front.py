"""What the command line answers without importing torch: help, version, the shipped configs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning_poison import __version__
from lightning_poison.cli.configs import describe_configs, find_config
from lightning_poison.errors import UserError

__all__ = ["SUBCOMMANDS", "answer_quickly"]

SUBCOMMANDS = ("fit", "validate", "test", "predict", "experiment")

_HELP = """\
usage: lightning-poison {fit,validate,test,predict} [--config FILE] [--KEY=VALUE ...]
       lightning-poison experiment [--config FILE] [--KEY=VALUE ...]
       lightning-poison configs [NAME]

If somebody flips some of my training labels, how much more vulnerable is my network,
which flips hurt most, and what can I still guarantee?

commands:
  fit        flip labels, train a victim on them, measure it, write a report
  validate   measure a checkpoint on the validation set (--ckpt_path FILE)
  test       measure a checkpoint on the test set (--ckpt_path FILE)
  predict    write the predictions of a checkpoint (--ckpt_path FILE)
  experiment compare strategies over victims and seeds; run again, it goes on where it stopped
  configs    list the shipped configs, or print one

first steps:
  lightning-poison fit --config digits.yaml              about a minute, no download
  lightning-poison fit --config mnist.yaml               MNIST; --data.root DIR if you have it
  lightning-poison experiment --config experiment_digits.yaml --seeds 3
  lightning-poison fit --config digits.yaml --poison=null                    the clean run
  lightning-poison fit --config digits.yaml --poison.select=RandomPoints --poison.select.per_class=20
  lightning-poison fit --config digits.yaml --trainer.callbacks+=AdversarialAccuracy \\
      --trainer.callbacks.attack=PGD --trainer.callbacks.attack.eps=8/255

options:
  -h, --help   this text; `lightning-poison fit --help` lists every key of a command
  --version    the version
"""


def answer_quickly(arguments: Sequence[str]) -> int | None:
    """Answer help, version and ``configs``; None where a Trainer has to run.

    Args:
        arguments: as typed after the program's name.

    Returns:
        the exit code, or None.

    Example:
        >>> answer_quickly(["fit", "--config", "digits.yaml"]) is None
        True
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"lightning_poison {__version__}")
        return 0
    if arguments[0] == "configs":
        return _answer_configs(arguments[1:])
    return None


def _answer_configs(names: Sequence[str]) -> int:
    try:
        if len(names) > 1:
            raise UserError(f"configs takes at most one name, got {len(names)}: {' '.join(names)}")
        if names and names[0] in ("-h", "--help"):
            print("usage: lightning-poison configs [NAME]\n\nList the shipped configs, or print one.")
        elif names:
            print(find_config(names[0]).read_text(encoding="utf-8"), end="")
        else:
            configs = describe_configs()
            width = max(map(len, configs), default=0)
            for name, description in configs.items():
                print(f"{name:<{width}} {description}")
    except UserError as error:
        print(f"lightning-poison: error: {error}", file=sys.stderr)
        return 2
    return 0
