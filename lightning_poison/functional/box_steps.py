"""Steepest steps that the box [0, 1] does not cut short."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["l1_step_in_box"]


def l1_step_in_box(points: Tensor, gradients: Tensor, length: float) -> Tensor:
    """Solve, for each sample x with gradient g, ``max <g, d>`` subject to ``||d||_1 <= length``, x + d in [0, 1].

    The steepest l1 step moves a single coordinate and would be wasted where the box stops it. With the box this is the
    fractional knapsack problem (Dantzig, 1957), whose items are the coordinates, each worth ``|g_i|`` a unit and as big
    as its room (the distance to the box's border in the direction of g_i): take them in the order of ``|g_i|``, each up
    to its room, until the length is used up (as the step of Croce and Hein, "Mind the box", 2021, sect. 2.3). Of equal
    ones the first is taken first; a coordinate without gradient stays.

    Args:
        points: shape (N, ...), float; a coordinate outside the box has no room on that side.
        gradients: shape (N, ...), float.
        length: of the step, in pixel units.

    Returns:
        x + d, shape (N, ...).

    Example:
        >>> l1_step_in_box(torch.tensor([[0.9, 0.5, 0.2]]), torch.tensor([[3.0, -2.0, 1.0]]), 0.3)
        tensor([[1.0000, 0.3000, 0.2000]])
    """
    if length == 0 or not points.numel():
        return points.clone()
    values, slopes = points.flatten(1), gradients.flatten(1)
    directions = slopes.sign()
    room = ((slopes > 0).to(values.dtype) - values).mul_(directions).clamp_min_(0)
    worth = slopes.abs() * room.sign()
    cutoff = _cutoff(worth, room, length)
    dearer, level = (worth - cutoff).sign_().clamp_min_(0), (worth == cutoff).to(values.dtype)
    sure, shared = dearer.mul_(room), level.mul_(room)
    left = (length - sure.sum(dim=1, keepdim=True)).clamp_min_(0)
    shared = torch.minimum(shared, (left - shared.cumsum(dim=1) + shared).clamp_min_(0))
    return (values + directions * (sure + shared)).view_as(points)


def _cutoff(worth: Tensor, room: Tensor, length: float, count: int = 0) -> Tensor:
    """The worth, shape (N, 1), down to which the dearest coordinates fill the length; 0 where all of them don't.

    Only the ``count`` dearest are put in order; samples where they don't suffice are gone through again.
    """
    size = worth.shape[1]
    count = min(size, count or 8 + 4 * math.ceil(min(length, size)))
    dearest, places = worth.topk(count, dim=1)
    full = room.gather(1, places).cumsum(dim=1) >= length
    first = full.to(torch.uint8).argmax(dim=1, keepdim=True)
    cutoff = dearest.gather(1, first) * full[:, -1:]
    again = (~full[:, -1]).nonzero().squeeze(1)
    if count < size and len(again):
        cutoff[again] = _cutoff(worth[again], room[again], length, 4 * count)
    return cutoff
