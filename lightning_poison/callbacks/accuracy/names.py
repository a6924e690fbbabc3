"""Short names that tell several attacks apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from lightning_poison.attacks import Attack

__all__ = ["short_names"]


def short_names(attacks: Sequence[Attack]) -> list[str]:
    """A name in lower case for each attack; where two share one, with the norm, radius or library that differs.

    Example:
        >>> from lightning_poison.attacks import FGSM, PGD
        >>> short_names([PGD(), FGSM()]), short_names([PGD(), PGD(norm="l2")]), short_names([PGD(), PGD(restarts=2)])
        (['pgd', 'fgsm'], ['pgd-linf', 'pgd-l2'], ['pgd', 'pgd-2'])
        >>> short_names([PGD(0.1), PGD(0.2), FGSM()])
        ['pgd-0.1', 'pgd-0.2', 'fgsm']
    """
    names = [_slug(attack.name.rpartition(".")[2]) for attack in attacks]
    for name in [name for name, count in Counter(names).items() if count > 1]:
        rows = [row for row, other in enumerate(names) if other == name]
        for row, apart in zip(rows, _apart(name, [attacks[row] for row in rows]), strict=True):
            names[row] = apart
    seen: Counter[str] = Counter()
    for row, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[row] = f"{name}-{seen[name]}"
    return names


def _apart(name: str, attacks: Sequence[Attack]) -> list[str]:
    """The names with the first property in which all of them differ, or as they are."""
    properties: tuple[Callable[[Attack], str], ...] = (
        lambda attack: f"{name}-{attack.norm}",
        lambda attack: f"{name}-{attack.eps:g}",
        lambda attack: f"{name}-{attack.norm}-{attack.eps:g}",
        lambda attack: _slug(attack.name),
        lambda attack: f"{_slug(attack.name)}-{attack.norm}-{attack.eps:g}",
    )
    for words in properties:
        told = [words(attack) for attack in attacks]
        if len(set(told)) == len(told):
            return told
    return [name] * len(attacks)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
