"""The arguments that a strategy inherits, in its own docstring, which is what ``help()`` shows."""

from __future__ import annotations

import inspect
import re

__all__ = ["describe_inherited_arguments"]

_ARGS = "Args:\n"
_ENTRY = re.compile(r"^    (\w+):.*(?:\n {8}.*)*", re.MULTILINE)
_LATER = re.compile(r"^(?:Attributes|Raises|Example):\n", re.MULTILINE)


def describe_inherited_arguments(cls: type) -> None:
    """Add to a class's docstring what those of its bases say of arguments that it does not describe itself.

    They come in the order in which the constructor of a dataclass takes them, those of the bases first. The command
    line's ``--help`` looks them up in the bases without that.

    Args:
        cls: a class under the definition of its base; without a docstring of its own it is left as it is.

    Example:
        >>> class Base:
        ...     '''A base.
        ...
        ...     Args:
        ...         count: how many.
        ...     '''
        >>> class Derived(Base):
        ...     '''More.
        ...
        ...     Raises:
        ...         ValueError: never.
        ...     '''
        >>> describe_inherited_arguments(Derived)
        >>> print(Derived.__doc__)
        More.
        <BLANKLINE>
        Args:
            count: how many.
        <BLANKLINE>
        Raises:
            ValueError: never.
    """
    if not cls.__dict__.get("__doc__"):
        return
    entries: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        entries |= {found[1]: found[0] for found in _ENTRY.finditer(_arguments(base)[1])}
    before, _, after = _arguments(cls)
    section = _ARGS + "\n".join(entries.values()) if entries else ""
    cls.__doc__ = "\n\n".join(part.strip("\n") for part in (before, section, after) if part)


def _arguments(cls: type) -> tuple[str, str, str]:
    """A docstring before, in and after its section of arguments, which comes before all others."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    later = _LATER.search(text)
    end = later.start() if later else len(text)
    before, _, section = text[:end].partition(f"\n{_ARGS}")
    return before, section, text[end:]
