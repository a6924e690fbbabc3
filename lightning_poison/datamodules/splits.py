"""Which points are trained on, held out or left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_integer, as_list, check_integer, check_number, kind_shown
from lightning_poison.functional.random_streams import generator, mix_seed

__all__ = ["PointsOrShare", "check_classes", "check_share", "of_classes", "random_parts"]

PointsOrShare: TypeAlias = int | float
"""How many points (an integer) or which share of them (a float below 1); as float alone, 1 would be read as 1.0."""


def check_classes(classes: list[int] | None, num_classes: int) -> list[int]:
    """The classes to keep, in the order that gives their new numbers.

    Raises:
        UserError: fewer than two, a repeated one, or one out of range.

    Example:
        >>> check_classes([7, 1], num_classes=10), check_classes(None, num_classes=3)
        ([7, 1], [0, 1, 2])
    """
    if classes is None:
        return list(range(num_classes))
    given = as_list(classes)
    if given is None:
        raise UserError(f"classes must be a list such as [0, 1], got {kind_shown(classes)}; null means every class")
    checked: list[int] = []
    for label in given:
        number = as_integer(label)
        if number is None or not 0 <= number < num_classes:
            raise UserError(f"classes must be integers in [0, {num_classes - 1}], got {label!r} in {given}")
        checked.append(number)
    if len(set(checked)) < len(checked) or len(checked) < 2:
        raise UserError(f"classes must name at least two different classes, got {checked}")
    return checked


def check_share(name: str, value: PointsOrShare) -> int | float:
    """A number of points (an integer) or their share (a float in [0, 1)).

    Raises:
        UserError: it is neither.

    Example:
        >>> check_share("val_split", 5000.0), check_share("val_split", 0.1)
        (5000, 0.1)
    """
    value = value.item() if isinstance(value, np.number) else value
    remedy = "an integer counts points, a float below 1 is a share of them"
    if isinstance(value, float) and value.is_integer() and value != 1:
        value = int(value)  # the command line reads 5000 as 5000.0
    if isinstance(value, bool) or as_integer(value) is not None:
        return check_integer(name, value, minimum=0, remedy=remedy)  # type: ignore[arg-type]  # no float
    return check_number(name, value, minimum=0, maximum=0.999999, remedy=remedy)


def of_classes(labels: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """The points of the given classes and their renumbered labels.

    Args:
        labels: shape (n,), int64.
        classes: the i-th of them becomes label i.

    Returns:
        index, shape (m,), int64, increasing; labels, shape (m,), int64, in [0, len(classes) - 1].

    Example:
        >>> of_classes(torch.tensor([7, 3, 1, 7]), [1, 7])
        (tensor([0, 2, 3]), tensor([1, 0, 1]))
    """
    numbers = torch.full((max(int(labels.max()), *classes) + 1,), -1)
    numbers[torch.tensor(classes)] = torch.arange(len(classes))
    renumbered = numbers[labels]
    index = (renumbered >= 0).nonzero().squeeze(1)
    return index, renumbered[index]


def random_parts(
    n: int,
    held_out: float,
    max_samples: int | None,
    seed: int,
    name: str = "val_split",
    together: Sequence[Sequence[int]] = (),
    keys: Sequence[bytes] | None = None,
) -> tuple[Tensor, Tensor]:
    """Hold out points at random, and keep at most ``max_samples`` of the rest, drawn at random too.

    A smaller ``max_samples`` keeps a part of what a larger one keeps.

    Args:
        n: number of points.
        held_out: how many of them, or which share, to hold out.
        max_samples: None: all of the rest.
        seed: of the draw.
        name: of the argument that ``held_out`` was given as.
        together: points of which either all are held out or none, such as copies of each other; fewer points than
            asked for are held out where the count cannot be met.
        keys: what tells the n points apart; a point is then drawn wherever it stands. None: its position does.

    Returns:
        training points and held-out points, int64, each increasing.

    Raises:
        UserError: nothing would be left for training, or ``max_samples`` exceeds the rest.

    Example:
        >>> [len(part) for part in random_parts(100, held_out=0.1, max_samples=50, seed=0)]
        [50, 10]
    """
    count = held_out if isinstance(held_out, int) else int(held_out * n + 0.5)
    if count >= n:
        raise UserError(
            f"{name} must leave points for training, got {held_out} and there are {n}; lower {name}, "
            "an integer counts points, a float below 1 is a share of them"
        )
    order = torch.randperm(n, generator=generator(seed, "split")) if keys is None else _shuffled(keys, seed)
    chosen = _drawn(order, count, together)
    rest = order[~chosen]
    if max_samples is not None and max_samples > len(rest):
        raise UserError(
            f"max_samples must be at most the {len(rest)} training points, got {max_samples}; null means all of them"
        )
    return rest[:max_samples].sort().values, order[chosen].sort().values


def _drawn(order: Tensor, count: int, together: Sequence[Sequence[int]]) -> Tensor:
    """Which points of a random order are held out: the first ones, but whole groups only, as long as they fit."""
    if not together:
        return torch.arange(len(order)) < count
    companions = {point: group for group in together for point in group}
    held_out: set[int] = set()
    for point in order.tolist():
        group = companions.get(point, (point,))
        if point not in held_out and len(held_out) + len(group) <= count:
            held_out.update(group)
    return torch.tensor([point in held_out for point in order.tolist()], dtype=torch.bool)


def _shuffled(keys: Sequence[bytes], seed: int) -> Tensor:
    salt = mix_seed(seed, "split").to_bytes(8, "little")
    hashes = [hashlib.blake2b(key, digest_size=16, salt=salt).digest() for key in keys]
    return torch.tensor(sorted(range(len(keys)), key=hashes.__getitem__), dtype=torch.int64)
