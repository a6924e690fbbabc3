"""Pickles that can be compared between processes."""

from __future__ import annotations

import io
import re
from typing import Any

__all__ = ["lasting_pickle"]


def lasting_pickle(thing: Any) -> bytes:
    """A pickle that is the same in every process that runs the same script; it is for comparison only.

    cloudpickle writes classes of the script that runs, or of a notebook, with all that is in them, and gives each a
    random name, which is taken out here.

    Example:
        >>> from fractions import Fraction
        >>> lasting_pickle(Fraction(1, 3)) == lasting_pickle(Fraction(2, 6))
        True
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            if not isinstance(obj, type) or not isinstance(reduced, tuple):
                return reduced
            arguments = tuple("" if _is_random_name(each) else each for each in reduced[1])
            return (reduced[0], arguments, *reduced[2:])

    with io.BytesIO() as stream:
        Pickler(stream).dump(thing)
        return stream.getvalue()


def _is_random_name(argument: Any) -> bool:
    return isinstance(argument, str) and re.fullmatch("[0-9a-f]{32}", argument) is not None
