"""Whether what an experiment is made of is of the right kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_poison.attacks import Attack
from lightning_poison.errors import UserError
from lightning_poison.experiments.victim_plan import VictimPlan
from lightning_poison.functional.checks import as_list, kind_shown
from lightning_poison.poisons import Poison, Selector

__all__ = ["check_kinds"]


def check_kinds(data: Any, strategies: Any, victims: Any, attack: Any, eps: Any) -> None:
    """Refuse what would end in a traceback later.

    Args:
        data: should be a LightningDataModule of either package.
        strategies: should map names to poisons or None.
        victims: should map names to victim plans.
        attack: should be an attack.
        eps: should be several numbers.

    Raises:
        UserError: one is of another kind.

    Example:
        >>> check_kinds(object(), {}, {}, None, [])
        Traceback (most recent call last):
        lightning_poison.errors.UserError: data must be a LightningDataModule, got object; write Digits() or your own
    """
    if isinstance(data, type) or not callable(getattr(data, "train_dataloader", None)):
        raise UserError(f"data must be a LightningDataModule, got {kind_shown(data)}; write Digits() or your own")
    _check_names("strategies", strategies, "LabelFlips(RandomPoints())")
    _check_names("victims", victims, "VictimPlan(StrideCNN)")
    for name, poison in strategies.items():
        if poison is not None and not isinstance(poison, Poison):
            shown = kind_shown(poison)
            remedy = f"LabelFlips({shown}(...))" if isinstance(poison, Selector) else "LabelFlips(RandomPoints())"
            raise UserError(f"strategy {name} must be a poison, or null for clean labels, got {shown}; write {remedy}")
    for name, plan in victims.items():
        if not isinstance(plan, VictimPlan):
            shown = kind_shown(plan)
            raise UserError(f"victim {name} must be a VictimPlan, got {shown}; write VictimPlan(net, recipe)")
    if not isinstance(attack, Attack):
        raise UserError(f"attack must be an attack, got {kind_shown(attack)}; write PGD(), or leave it out")
    if as_list(eps) is None:
        raise UserError(f"eps must be a list of radii, got {eps!r}; write [0.1]")


def _check_names(argument: str, given: Any, example: str) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{argument} must map names to them, got {kind_shown(given)}; write {{'name': {example}}}")
    if not given:
        raise UserError(f"{argument} must name at least one, got none; write them as NAME: ...")
    for name in given:
        if not isinstance(name, str) or not name.strip() or "|" in name or "\n" in name:
            raise UserError(
                f"names of {argument} must be texts without bars and line breaks, got {name!r}; put it in quotes"
            )
