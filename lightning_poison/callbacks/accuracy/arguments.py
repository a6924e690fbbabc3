"""What a user may give as attacks and as radii."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning_poison.attacks import PGD, Attack
from lightning_poison.attacks.robustness_curve import check_sweep
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_list

__all__ = ["checked_sweep", "given_attacks"]


def given_attacks(attack: Any) -> list[Any]:
    """The attacks that ``attack`` stands for: itself, those of a list, or ``PGD()`` for None.

    Raises:
        UserError: there is none, one is none, or one is there twice.

    Example:
        >>> given_attacks([PGD(0.1), PGD(0.1)])
        Traceback (most recent call last):
        ...
        lightning_poison.errors.UserError: attack must not list one twice, got two equal PGD; leave one out
    """
    given = as_list(attack)
    attacks = [PGD()] if attack is None else [attack] if given is None else given
    if not attacks:
        raise UserError("attack must name at least one attack, got an empty list; write PGD(), or leave attack out")
    for entry in attacks:
        if isinstance(entry, type) and issubclass(entry, Attack):
            raise UserError(f"attack must be an attack, got the class {entry.__name__}; write {entry.__name__}()")
        if not callable(entry):
            raise UserError(f"attack must be an attack such as PGD(eps=0.1), got {entry!r}")
    for place, entry in enumerate(attacks):
        if any(_are_equal(entry, other) for other in attacks[:place]):
            name = getattr(entry, "func", type(entry)).__name__
            raise UserError(f"attack must not list one twice, got two equal {name}; leave one out")
    return attacks


def _are_equal(attack: Any, other: Any) -> bool:
    if isinstance(attack, partial) and isinstance(other, partial):
        return (attack.func, attack.args, attack.keywords) == (other.func, other.args, other.keywords)
    return bool(attack == other)


def checked_sweep(attacks: list[Any], radii: Any) -> list[float]:
    """The radii of a sweep with ``attacks``, in pixel units; what makes an attack is asked once it is made.

    Raises:
        UserError: an attack has no radius to set, the norms differ, or the radii do not increase.

    Example:
        >>> checked_sweep([PGD()], [0.1, "51/255"])
        [0.1, 0.2]
    """
    for attack in attacks:
        if isinstance(attack, Attack):  # the others are checked once they are built
            radii = check_sweep(attack, radii)[1]
    norms = sorted({str(attack.norm) for attack in attacks if isinstance(attack, Attack)})
    if len(norms) > 1:
        raise UserError(f"eps_sweep needs attacks of one norm, got {', '.join(norms)}; use one callback for each norm")
    return list(radii)
