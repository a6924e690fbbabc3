"""How a strategy is written down in a flip list."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

__all__ = ["arguments", "describe"]


def describe(rule: Any) -> str:
    """A strategy as the Python call that builds it, without the arguments left at None.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, RandomPoints, ToClass
        >>> describe(LabelFlips(RandomPoints(per_class=10, classes=[0, 1]), ToClass(2)))
        'LabelFlips(RandomPoints(per_class=10, classes=[0, 1]), ToClass(2))'
    """
    if not dataclasses.is_dataclass(rule) or isinstance(rule, type):
        return getattr(rule, "__name__", type(rule).__name__)
    parts, positional = [], True
    for position, (name, value) in enumerate(_given(rule)):
        bare = dataclasses.is_dataclass(value) or (position == 0 and not _has_optional_fields(rule))
        positional = positional and bare
        parts.append(_shown(value) if positional else f"{name}={_shown(value)}")
    return f"{type(rule).__name__}({', '.join(parts)})"


def arguments(rule: Any) -> dict[str, Any]:
    """A strategy as nested plain Python, ready for JSON.

    Example:
        >>> from lightning_poison.poisons import RandomPoints
        >>> arguments(RandomPoints(count=5))
        {'class': 'RandomPoints', 'count': 5}
    """
    named: dict[str, Any] = {"class": type(rule).__name__}
    if dataclasses.is_dataclass(rule):
        for name, value in _given(rule):
            named[name] = _plain(value)
    return named


def _given(rule: Any) -> list[tuple[str, Any]]:
    pairs = [(field.name, getattr(rule, field.name)) for field in dataclasses.fields(rule) if field.init]
    return [(name, value) for name, value in pairs if value is not None]


def _has_optional_fields(rule: Any) -> bool:
    return any(field.default is None for field in dataclasses.fields(rule))


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, functools.partial):
        return _called(value)
    return describe(value) if dataclasses.is_dataclass(value) or callable(value) else repr(value)


def _called(call: functools.partial[Any]) -> str:
    """A function with some arguments given: the class among them, where a parser stands between it and its caller."""
    classes = [argument for argument in call.args if isinstance(argument, type)]
    given = ", ".join(f"{name}={_shown(value)}" for name, value in call.keywords.items())
    name = describe(classes[0] if classes else call.func)
    return f"{name}({given})" if given else name


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return arguments(value)
    return _shown(value) if callable(value) else str(value)
