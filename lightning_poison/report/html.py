"""HTML whose text cannot become markup: every string is escaped unless an element made it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

__all__ = ["Markup", "breakable", "element"]

_VOID = frozenset({"img", "link", "meta", "br", "hr", "wbr"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Iterable["Child"] | None


def element(name: str, /, *children: Child, **attributes: str | None) -> Markup:
    """One element; strings among ``children`` are escaped, lists are flattened, None is left out.

    An attribute's trailing underscore is dropped and its others become dashes; one with value None is left out.

    Example:
        >>> element("p", "1 < 2", element("b", "!"), class_="note", aria_label=None)
        '<p class="note">1 &lt; 2<b>!</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{''.join(_text(child) for child in children)}</{name}>")


def breakable(text: str) -> list[Markup]:
    """``text`` that may be broken after a slash, an underscore or a dot, and nowhere within a word.

    Example:
        >>> breakable("val/acc")
        ['val/<wbr>', 'acc']
    """
    pieces = re.split(r"(?<=[/_.])", text)
    return [Markup(escape(piece) + "<wbr>" * (place < len(pieces) - 1)) for place, piece in enumerate(pieces)]


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escape(child)
    return "".join(_text(grandchild) for grandchild in child)
