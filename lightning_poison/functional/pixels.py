"""Sizes in pixel units: fractions such as ``8/255`` are read, grey levels such as ``8`` are refused."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import register_type

from lightning_poison.errors import UserError

__all__ = ["Pixels", "Radius", "in_grey_levels"]


def in_grey_levels(value: float) -> str:
    """``value`` as a multiple of 1/255, the unit of 8-bit images.

    Example:
        >>> in_grey_levels(8 / 255), in_grey_levels(0.1)
        ('8/255', '25.5/255')
    """
    return f"{round(value * 255, 2):g}/255"


def _number(value: object) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(Fraction(value)) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"a size in pixel units must be a number or a fraction, got {value!r}; write 0.1 or 8/255")
    return number


def _checked(value: object, maximum: float) -> float:
    number = _number(value)
    if not 0 <= number <= maximum:
        rule = f"lie in [0, {maximum:g}]" if maximum < math.inf else "not be negative"
        remedy = f"; for {number:g} grey levels of 255 write {number:g}/255" if number > 1 else ""
        raise UserError(f"a size in pixel units must {rule}, got {number:g}{remedy}")
    return number


if TYPE_CHECKING:
    Pixels = float
    Radius = float
else:

    class Radius(float):
        """The radius of a ball in pixel units, not negative; as an annotation, the type of such an argument.

        An l2 radius may well exceed 1, an l_inf radius may not; whoever knows the norm checks that.

        Raises:
            UserError: the value is not a number or a fraction, or is negative.

        Example:
            >>> float(Radius("8/255")) == 8 / 255, float(Radius(2))
            (True, 2.0)
        """

        __slots__ = ()
        _maximum = math.inf

        def __new__(cls, value: object) -> Any:  # noqa: D102
            return super().__new__(cls, _checked(value, cls._maximum))

    class Pixels(Radius):
        """A change of a pixel, in units of the whole range [0, 1].

        Raises:
            UserError: the value is not a number or a fraction, or lies outside [0, 1].

        Example:
            >>> Pixels("0.1")
            0.1
            >>> Pixels(8)
            Traceback (most recent call last):
            ...
            lightning_poison.errors.UserError: a size in pixel units must lie in [0, 1], got 8; for 8 grey levels of \
255 write 8/255
        """

        __slots__ = ()
        _maximum = 1.0


def _readable(value: float) -> float | str:
    levels = round(value * 255)
    is_long = len(repr(float(value))) > 6
    return f"{levels}/255" if is_long and levels / 255 == value else float(value)


def _register(kind: type[float], maximum: float) -> None:
    """Let the command line read ``kind``; what it hands on is a plain float, which every YAML writer knows."""
    register_type(
        kind,
        serializer=_readable,
        deserializer=lambda value: _checked(value, maximum),
        type_check=lambda value, _: type(value) is float and 0 <= value <= maximum,
        fail_already_registered=False,
    )


_register(Radius, math.inf)
_register(Pixels, 1.0)
