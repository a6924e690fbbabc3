"""How a strategy is written down in a flip list."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["arguments", "describe"]


def describe(rule: Any) -> str:
    """A strategy as the Python call that builds it, without the arguments left at None.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, RandomPoints, ToClass
        >>> describe(LabelFlips(RandomPoints(per_class=10, classes=[0, 1]), ToClass(2)))
        'LabelFlips(RandomPoints(per_class=10, classes=[0, 1]), ToClass(2))'
    """
    if not dataclasses.is_dataclass(rule):
        return rule.__name__ if isinstance(rule, type) else type(rule).__name__
    parts = [
        describe(value)
        if dataclasses.is_dataclass(value)
        else repr(value)
        if position == 0 and not _has_optional_fields(rule)
        else f"{name}={value!r}"
        for position, (name, value) in enumerate(_given(rule))
    ]
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
            named[name] = arguments(value) if dataclasses.is_dataclass(value) else _plain(value)
    return named


def _given(rule: Any) -> list[tuple[str, Any]]:
    pairs = [(field.name, getattr(rule, field.name)) for field in dataclasses.fields(rule) if field.init]
    return [(name, value) for name, value in pairs if value is not None]


def _has_optional_fields(rule: Any) -> bool:
    return any(field.default is None for field in dataclasses.fields(rule))


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
