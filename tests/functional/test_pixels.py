import math

import pytest
from jsonargparse import ArgumentParser

from lightning_poison.errors import UserError
from lightning_poison.functional.pixels import Pixels, Radius, in_grey_levels


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), (0.25, 0.25), (1, 1.0), ("1e-2", 0.01), (0, 0.0)]
)
def test_numbers_and_fractions_are_read(text, value):
    assert Pixels(text) == value
    assert isinstance(Pixels(text), float)


@pytest.mark.parametrize("value", [8, -0.1, "8", 1.001, "256/255"])
def test_values_outside_the_unit_interval_are_refused(value):
    with pytest.raises(UserError, match=r"must lie in \[0, 1\], got"):
        Pixels(value)


@pytest.mark.parametrize("value", ["abc", None, True, math.nan, math.inf, "1/0", [0.1], "nan"])
@pytest.mark.parametrize("kind", [Pixels, Radius])
def test_garbage_is_refused_in_one_line(kind, value):
    with pytest.raises(UserError, match="must be a number or a fraction") as caught:
        kind(value)
    assert "\n" not in str(caught.value)


def test_the_remedy_for_grey_levels_is_named():
    with pytest.raises(UserError, match="for 8 grey levels of 255 write 8/255"):
        Pixels(8)


def test_a_radius_may_exceed_one_but_not_be_negative():
    assert Radius("5/2") == 2.5
    with pytest.raises(UserError, match="must not be negative"):
        Radius(-1)


def parser():
    made = ArgumentParser(exit_on_error=False)
    made.add_argument("--eps", type=Pixels)
    return made


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), ("1", 1.0)])
def test_the_command_line_gives_plain_floats_that_survive_a_dump(text, value):
    parsed = parser().parse_args([f"--eps={text}"])
    assert type(parsed.eps) is float
    assert parsed.eps == value
    assert parser().parse_string(parser().dump(parsed)).eps == value


def test_a_dump_keeps_grey_levels_readable():
    assert "8/255" in parser().dump(parser().parse_args(["--eps=8/255"]))


@pytest.mark.parametrize("text", ["8", "8.0", "abc", "-0.1"])
def test_the_command_line_refuses(text):
    with pytest.raises(Exception, match="a size in pixel units must"):
        parser().parse_args([f"--eps={text}"])


def test_grey_levels():
    assert in_grey_levels(1) == "255/255"
