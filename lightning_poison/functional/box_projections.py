"""Euclidean projections onto the intersection of a norm ball with the box [0, 1], sample by sample.

Each solves ``min ||u - v||_2`` subject to ``||u - c||_p <= eps`` and ``0 <= u <= 1`` for a centre c in the box. Let
``w = v - c``, and let ``b_i >= 0`` be the room between c_i and the box's border in the direction of w_i. Ball and box
both hold c and are symmetric enough that no coordinate of the solution moves away from w: ``u_i = c_i + sign(w_i) d_i``
with ``0 <= d_i <= b_i``, and what is left is to find the lengths d.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["onto_l1_ball_and_box", "onto_l2_ball_and_box", "onto_linf_ball_and_box"]


def onto_linf_ball_and_box(points: Tensor, centres: Tensor, radius: float) -> Tensor:
    """Project onto ``||u - c||_inf <= radius`` and [0, 1]: both are boxes, so each coordinate is clipped.

    Args:
        points: shape (N, ...), float.
        centres: shape (N, ...), in [0, 1].
        radius: of the ball, in pixel units.

    Returns:
        shape (N, ...).

    Example:
        >>> onto_linf_ball_and_box(torch.tensor([[1.3, 0.3]]), torch.tensor([[0.9, 0.5]]), 0.15)
        tensor([[1.0000, 0.3500]])
    """
    return points.clamp(centres - radius, centres + radius).clamp_(0, 1)


def onto_l2_ball_and_box(points: Tensor, centres: Tensor, radius: float) -> Tensor:
    """Project onto ``||u - c||_2 <= radius`` and [0, 1].

    The conditions of Karush, Kuhn and Tucker with multiplier m >= 0 of ``||d||^2 <= radius^2`` are ``d_i - |w_i| +
    m d_i = 0``, cut off at the room: ``d_i = min(t |w_i|, b_i)`` with ``t = 1 / (1 + m)``, hence ``u = clip(c + t w)``.
    Either t = 1 already lies in the ball, or t solves ``f(s) = sum_i min(s w_i^2, b_i^2) = radius^2`` with s = t^2.
    As f is increasing, concave and piecewise linear, Newton's method from ``s = radius^2 / ||w||^2``, where f is not
    above its goal, climbs to the root without passing it, cuts off at least one more coordinate with every step, and
    has arrived when it cuts off none. Few steps do (two to six on images), and nothing is sorted.

    Args:
        points: shape (N, ...), float; half precision is computed in single.
        centres: shape (N, ...), in [0, 1].
        radius: of the ball, in pixel units.

    Returns:
        shape (N, ...).

    Example:
        >>> onto_l2_ball_and_box(torch.tensor([[2.0, 0.9]]), torch.tensor([[0.7, 0.1]]), 0.5)
        tensor([[1.0000, 0.5000]])
    """
    if radius == 0 or not points.numel():
        return centres.clone()
    goals, origins = _flat(points), _flat(centres)
    ways = goals - origins
    longest = ways.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(ways.dtype).tiny)
    squares = (ways / longest).square_()  # in units in which neither they nor the limits overflow or vanish
    limits = _room(ways, origins).div_(radius).square_()
    most = (longest / radius).clamp_(1e-18, 1e18).square_()  # t = 1
    scales = torch.minimum(1 / squares.sum(dim=1, keepdim=True), most)
    for _ in range(squares.shape[1] + 1):
        lengths = scales * squares
        missing = 1 - torch.minimum(lengths, limits).sum(dim=1, keepdim=True)
        if ((missing <= 4 * torch.finfo(ways.dtype).eps) | (scales >= most)).all():
            break
        free = (limits - lengths).sign_().clamp_min_(0)  # masks of floats are faster than masks of bools
        slopes = free.mul_(squares).sum(dim=1, keepdim=True)
        scales = torch.minimum(scales + missing.clamp_min_(0) / slopes.clamp_min_(1e-36), most)
    shares = torch.where(scales >= most, 1, scales.sqrt() * (radius / longest)).clamp_max_(1)
    return torch.lerp(origins, goals, shares).to(points.dtype).clamp_(0, 1).view_as(points)


def onto_l1_ball_and_box(points: Tensor, centres: Tensor, radius: float) -> Tensor:
    """Project onto ``||u - c||_1 <= radius`` and [0, 1].

    The conditions of Karush, Kuhn and Tucker with multiplier l >= 0 of ``sum_i d_i <= radius`` give ``d_i = clip(|w_i|
    - l, 0, b_i)``; either l = 0 already lies in the ball, or l solves ``g(l) = sum_i clip(|w_i| - l, 0, b_i) = radius``
    (Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", 2021, prop. 2.1).
    They sort the 2 d breakpoints of g; here Newton's method, exact on the linear piece that holds the root, finds it
    in fewer operations (Cominetti, Mascarenhas and Silva, "A Newton's method for the continuous quadratic knapsack
    problem", 2014). As g is neither convex nor concave, a step that leaves the interval known to hold the root is
    replaced by halving that interval.

    Args:
        points: shape (N, ...), float; half precision is computed in single.
        centres: shape (N, ...), in [0, 1].
        radius: of the ball, in pixel units.

    Returns:
        shape (N, ...).

    Example:
        >>> onto_l1_ball_and_box(torch.tensor([[2.0, 0.9]]), torch.tensor([[0.7, 0.1]]), 0.5)
        tensor([[1.0000, 0.3000]])
    """
    if radius == 0 or not points.numel():
        return centres.clone()
    goals, origins = _flat(points), _flat(centres)
    ways = goals - origins
    lengths, room = ways.abs(), _room(ways, origins)
    inside = torch.minimum(lengths, room).sum(dim=1, keepdim=True) <= radius
    steps = _shortened(lengths, room, _l1_threshold(lengths, room, radius))
    steps *= (radius / steps.sum(dim=1, keepdim=True)).clamp_max_(1)  # what rounding may have left over
    projected = torch.where(inside, goals, origins + ways.sign() * steps)
    return projected.to(points.dtype).clamp_(0, 1).view_as(points)


def _l1_threshold(lengths: Tensor, room: Tensor, radius: float) -> Tensor:
    """The l >= 0, shape (N, 1), at which ``sum_i clip(lengths_i - l, 0, room_i)`` falls to the radius, or 0."""
    rounding = 4 * torch.finfo(lengths.dtype).eps * radius
    low, high = torch.zeros_like(lengths[:, :1]), lengths.amax(dim=1, keepdim=True)
    found = low
    for _ in range(200):  # rarely more than ten; halving alone ends at two neighbouring numbers
        steps = _shortened(lengths, room, found)
        excess = steps.sum(dim=1, keepdim=True) - radius
        low, high = torch.where(excess >= -rounding, found, low), torch.where(excess <= 0, found, high)
        free = (room - steps).sign_().mul_(steps.sign_()).sum(dim=1, keepdim=True)  # how many are neither 0 nor b
        newton = found + excess / free
        ahead = torch.where((newton > low) & (newton < high), newton, low + (high - low) / 2)
        ahead = torch.where((excess.abs() <= rounding) | (high <= 0), found, ahead)
        if ahead.equal(found):
            break
        found = ahead
    return low


def _shortened(lengths: Tensor, room: Tensor, threshold: Tensor) -> Tensor:
    return torch.minimum((lengths - threshold).clamp_min_(0), room)


def _flat(batch: Tensor) -> Tensor:
    flat = batch.flatten(1)
    return flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat


def _room(ways: Tensor, origins: Tensor) -> Tensor:
    """How far each coordinate can go before it meets the box's border."""
    return (ways > 0).to(ways.dtype).sub_(origins).abs_()
