"""How a strategy is written down."""

from __future__ import annotations

import dataclasses
import inspect
from functools import partial

import pytest

from lightning_poison import poisons
from lightning_poison.nets import StrideCNN
from lightning_poison.poisons import LabelFlips, MetaFlips, NearestToBoundary, PathLengthBucket, RandomPoints
from lightning_poison.poisons.description import arguments, describe
from lightning_poison.poisons.surrogates import TrainedSurrogate


def between(factory, *given, **more):
    """What a parser puts around a class that is called later."""
    return factory(*given, **more)


def test_a_network_goes_by_its_class_whatever_the_parser_puts_around_it():
    from_the_parser = partial(between, partial(between, between), StrideCNN, width=4)
    assert describe(TrainedSurrogate(net=from_the_parser)) == "TrainedSurrogate(net=StrideCNN(width=4), copy=0)"
    assert arguments(TrainedSurrogate(net=from_the_parser))["net"] == "StrideCNN(width=4)"
    assert describe(TrainedSurrogate(net=StrideCNN)) == "TrainedSurrogate(net=StrideCNN, copy=0)"


def test_strategies_within_strategies_are_taken_apart():
    poison = LabelFlips(NearestToBoundary(per_class=3, surrogate=TrainedSurrogate(copy=2)))
    assert "surrogate=TrainedSurrogate(copy=2)" in describe(poison)
    assert arguments(poison)["select"]["surrogate"] == {"class": "TrainedSurrogate", "copy": 2}


def test_two_strategies_that_differ_are_written_differently():
    written = [
        describe(strategy)
        for strategy in (
            RandomPoints(per_class=3),
            RandomPoints(count=3),
            PathLengthBucket(per_class=3, bucket=0),
            PathLengthBucket(per_class=3, bucket=1),
            MetaFlips(per_class=3),
        )
    ]
    assert len(set(written)) == len(written)


@pytest.mark.parametrize("strategy", [getattr(poisons, name) for name in poisons.__all__])
def test_no_argument_is_a_word_that_yaml_takes_for_a_truth_value(strategy):
    if dataclasses.is_dataclass(strategy):
        names = {field.name for field in dataclasses.fields(strategy)}
        assert names.isdisjoint({"on", "off", "yes", "no", "y", "n", "true", "false", "null"})


@pytest.mark.parametrize("strategy", [getattr(poisons, name) for name in poisons.__all__])
def test_every_argument_of_a_selector_is_in_its_own_docstring_also_an_inherited_one(strategy):
    if inspect.isclass(strategy) and issubclass(strategy, poisons.Selector):
        _, _, described = inspect.cleandoc(strategy.__dict__["__doc__"]).partition("Args:\n")
        for argument in inspect.signature(strategy).parameters:
            assert f"\n    {argument}: " in f"\n{described}", f"{strategy.__name__} does not describe {argument}"
