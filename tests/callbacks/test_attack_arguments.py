"""What the command line takes for an attack."""

import re

import pytest
import torchattacks
from attack_runs import Scorer, data, validate
from jsonargparse import ArgumentParser

from lightning_poison.attacks import PGD
from lightning_poison.callbacks import AdversarialAccuracy


def parsed(*arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AdversarialAccuracy, "c", fail_untyped=False)
    first = parser.parse_args([f"--c.{argument}" for argument in arguments])
    again = parser.parse_string(parser.dump(first))
    return [parser.instantiate_classes(config).c for config in (first, again)]


@pytest.mark.parametrize(
    "arguments",
    [
        ('attack=[{"class_path": "PGD", "init_args": {"eps": "8/255"}}, {"class_path": "torchattacks.Square"}]',),
        ("attack+=PGD", "attack.eps=8/255", "attack+=torchattacks.Square"),
    ],
)
def test_the_command_line_takes_several(arguments):
    for callback in parsed(*arguments):
        own, foreign = callback.attack
        assert own == PGD(8 / 255)
        assert isinstance(foreign(Scorer()), torchattacks.Square)


def test_the_command_line_reads_fractions_for_torchattacks():
    for callback in parsed("attack=torchattacks.FGSM", "attack.eps=8/255"):
        validate(data(8), callback)
        assert callback.report_sections()[0].tables[0].rows[0][2:4] == ("0.03137", "8/255")


def test_the_other_arguments():
    for callback in parsed("target=next", "eps_sweep=[0, 8/255, 0.1]", "output=logits"):
        assert (callback.target, callback.eps_sweep, callback.output) == ("next", [0, 8 / 255, 0.1], "logits")
    for callback in parsed("target=3", "output=1"):
        assert (callback.target, callback.output) == (3, 1)


def test_an_attack_that_torchattacks_lacks():
    with pytest.raises(Exception, match=re.escape("module 'torchattacks' has no attribute 'NoSuchAttack'")):
        parsed("attack=torchattacks.NoSuchAttack")
