"""Covering data by few balls, and counting how much lies in each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_finite, check_integer, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.scale import unit_of

__all__ = ["BallCovering", "cover_by_balls"]

_ORDERS = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}
_ROWS = 512
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class BallCovering:
    """Balls, and how many points that had no say in their choice lie in them.

    Args:
        centres: shape (k, d), in the order in which they were chosen.
        classes: shape (k,), int64: the class that counts in each ball.
        rho: radius of the balls.
        norm: "l1", "l2" or "linf".
        in_ball: shape (k,), int64: held-out points of the ball's class in it.
        in_union: shape (k,), int64: held-out points in any of the first 1, 2, ..., k balls, of that ball's class.
        held_out: number of held-out points.
    """

    centres: Tensor
    classes: Tensor
    rho: float
    norm: str
    in_ball: Tensor
    in_union: Tensor
    held_out: int


def cover_by_balls(
    inputs: Tensor, labels: Tensor, rho: float, norm: str = "l2", max_balls: int = 50, seed: int = 0
) -> BallCovering:
    """Cover half of the points greedily by balls around some of them, and count the other half in the balls.

    Each ball is centred at a point, counts for its class, and is the one that holds the most points of its class that
    no earlier ball holds. Choosing on one half and counting on the other keeps the counts honest.

    Args:
        inputs: shape (m, ...), float, m >= 2.
        labels: shape (m,), integers: true labels.
        rho: radius of the balls, in the units of the inputs.
        norm: "l1", "l2" or "linf".
        max_balls: at most so many.
        seed: of the split into halves.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1], [0.05], [5.05], [0.0], [5.0]])
        >>> covering = cover_by_balls(points, (points[:, 0] > 1).long(), rho=0.2)
        >>> len(covering.centres), int(covering.in_union[-1]) == covering.held_out
        (2, True)
    """
    order = _ORDERS[check_choice("norm", norm, _ORDERS)]
    rho = check_number("rho", rho, minimum=0)
    max_balls = check_integer("max_balls", max_balls, minimum=1)
    if len(inputs) < 2 or len(inputs) != len(labels):
        raise UserError(f"inputs must be two or more, with a label each, got {len(inputs)} and {len(labels)} labels")
    points = check_finite("inputs", inputs, remedy="remove the broken samples").flatten(1).double()
    unit = unit_of(points)
    scaled, reach = points * unit, rho * unit
    shuffled = torch.randperm(len(points), generator=generator(seed, "covering"))
    chosen_from, held_out = shuffled[::2], shuffled[1::2]
    centres = chosen_from[_greedy(_within(scaled, labels, chosen_from, chosen_from, reach, order), max_balls)]
    rounded_down = reach * (1 - 4 * (points.shape[1] + 8) * _EPS)
    inside = _within(scaled, labels, centres, held_out, rounded_down, order, exact=True)
    return BallCovering(
        points[centres],
        labels[centres].long(),
        float(rho),
        norm,
        inside.sum(1),
        inside.cummax(0).values.sum(1),
        len(held_out),
    )


def _within(
    points: Tensor, labels: Tensor, centres: Tensor, others: Tensor, rho: float, order: float, exact: bool = False
) -> Tensor:
    """Which of ``others`` lie in the ball around each of ``centres`` and are of its class: shape (k, m), bool.

    The fast way to many distances, by inner products, cancels far from the origin: good enough to choose, not to count.
    """
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist_if_necessary"
    near = [
        torch.cdist(points[rows], points[others], p=order, compute_mode=mode) <= rho
        for rows in torch.split(centres, _ROWS)
    ]
    return torch.cat(near) & (labels[centres][:, None] == labels[others][None, :])


def _greedy(covered_by: Tensor, max_balls: int) -> Tensor:
    """Rows that cover the most columns, one after the other; the first among equals."""
    rows: list[int] = []
    left = torch.ones(covered_by.shape[1], dtype=torch.bool)
    while len(rows) < max_balls and left.any():
        best = int((covered_by & left).sum(1).argmax())
        left &= ~covered_by[best]
        rows.append(best)
    return torch.tensor(rows)
