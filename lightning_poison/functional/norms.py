"""What an attack has to know of a norm: size, steepest step, and the projection onto ball and box.

The Euclidean projections onto the intersection of a norm ball with the box [0, 1] are made sample by sample. Each
solves ``min ||u - v||_2`` subject to ``||u - c||_p <= eps`` and ``0 <= u <= 1`` for a centre c in the box. Let
``w = v - c``, and let ``b_i >= 0`` be the room between c_i and the box's border in the direction of w_i. Ball and box
both hold c and are symmetric enough that no coordinate of the solution moves away from w: ``u_i = c_i + sign(w_i) d_i``
with ``0 <= d_i <= b_i``, and what is left is to find the lengths d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_choice

__all__ = ["NORMS", "Norm", "l2_size", "named_norm"]


@dataclass(frozen=True)
class Norm:
    """A norm, as attacks use it; to add one, write its functions and enter it in ``NORMS``.

    Attributes:
        name: as users write it.
        size: the norm of each sample, (N, ...) to (N,).
        ascent: of all directions of norm at most 1, the one along which a gradient promises most.
        onto_ball_and_box: ``onto_ball_and_box(points, centres, eps)``: Euclidean projection onto the intersection of
            the ball of radius ``eps`` around each centre with the box [0, 1].
        random_direction: makes noise that is uniform on [-1, 1), (N, ...), a random point of the ball of radius 1:
            uniform in it for l_inf, on its sphere for l2 and l1.
        box_step: ``box_step(points, gradients, length)``: a steepest step that the box doesn't cut short; None: steps
            take no heed of the box.
    """

    name: str
    size: Callable[[Tensor], Tensor]
    ascent: Callable[[Tensor], Tensor]
    onto_ball_and_box: Callable[[Tensor, Tensor, float], Tensor]
    random_direction: Callable[[Tensor], Tensor]
    box_step: Callable[[Tensor, Tensor, float], Tensor] | None = None

    def step(self, points: Tensor, gradients: Tensor, length: float) -> Tensor:
        """Take a steepest step of ``length``, to be followed by :attr:`onto_ball_and_box`.

        For l_inf and l2 it is ``x + length * ascent(g)``, and may lead out of the box. For l_inf nothing is lost by
        that: clipped to the box it solves ``max <g, d>`` subject to ``||d||_inf <= length`` and x + d in [0, 1]. For
        l2 a share of the length is lost; for l1 all of it could be, so the step solves that problem (:attr:`box_step`).

        Args:
            points: shape (N, ...), float.
            gradients: shape (N, ...), float.
            length: in the norm, in pixel units.

        Returns:
            shape (N, ...).
        """
        if self.box_step is not None:
            return self.box_step(points, gradients, length)
        return torch.add(points, self.ascent(gradients), alpha=length)

    def tolerance(self, inputs: Tensor, eps: float) -> float:
        """By how much rounding may push an example out of the ball.

        Every coordinate of ``input + perturbation`` is rounded to the dtype's spacing at 1, u, and so is the factor
        of the projection: twice ``u * (||1|| + eps)`` covers both.
        """
        ones = torch.ones((1, inputs[0].numel()), dtype=torch.float64)
        return 2 * torch.finfo(inputs.dtype).eps * (float(self.size(ones)) + eps)

    def is_inside(self, examples: Tensor, inputs: Tensor, eps: float) -> Tensor:
        """Whether each example lies in the box [0, 1] exactly and in the ball up to :meth:`tolerance`.

        Returns:
            shape (N,), bool; False for a NaN.
        """
        if not len(inputs):
            return torch.ones(0, dtype=torch.bool, device=inputs.device)
        in_box = ((examples >= 0) & (examples <= 1)).flatten(1).all(dim=1)
        return in_box & (self.size(_wide(examples) - _wide(inputs)) <= eps + self.tolerance(inputs, eps))


def named_norm(name: str) -> Norm:
    """The norm called ``name``.

    Raises:
        UserError: there is none.

    Example:
        >>> named_norm("l2").name
        'l2'
    """
    return NORMS[check_choice("norm", name, NORMS)]


# --- sizes and steepest steps -----------------------------------------------------------------------------------------


def _linf_size(vectors: Tensor) -> Tensor:
    """Largest absolute coordinate of each sample.

    Args:
        vectors: shape (N, ...), float.

    Returns:
        shape (N,).

    Example:
        >>> _linf_size(torch.tensor([[3.0, -4.0]]))
        tensor([4.])
    """
    sizes: Tensor = torch.linalg.vector_norm(vectors.flatten(1), ord=torch.inf, dim=1)
    return sizes


def _linf_ascent(gradients: Tensor) -> Tensor:
    """Solve, for each sample g, ``max <g, d>`` subject to ``||d||_inf <= 1``.

    The solution is ``sign(g)`` and the maximum is ``||g||_1``, the dual norm.

    Args:
        gradients: shape (N, ...), float.

    Returns:
        shape (N, ...).

    Example:
        >>> _linf_ascent(torch.tensor([[0.5, -2.0, 0.0]]))
        tensor([[ 1., -1.,  0.]])
    """
    return gradients.sign()


def l2_size(vectors: Tensor) -> Tensor:
    """Euclidean length of each sample.

    Squares are added up in single precision at least, and by :func:`torch.sum`, as in :func:`_l1_size`.

    Args:
        vectors: shape (N, ...), float.

    Returns:
        shape (N,).

    Example:
        >>> l2_size(torch.tensor([[3.0, -4.0]]))
        tensor([5.])
    """
    return _wide(vectors.flatten(1)).square().sum(dim=1).sqrt().to(vectors.dtype)


def _l2_ascent(gradients: Tensor) -> Tensor:
    """Solve, for each sample g, ``max <g, d>`` subject to ``||d||_2 <= 1``.

    The solution is ``g / ||g||_2``, and 0 where g is 0. Gradients are scaled by their largest coordinate first: the
    squares of tiny ones would vanish.

    Args:
        gradients: shape (N, ...), float.

    Returns:
        shape (N, ...).

    Example:
        >>> _l2_ascent(torch.tensor([[3.0, -4.0], [3e-30, 4e-30]]))
        tensor([[ 0.6000, -0.8000],
                [ 0.6000,  0.8000]])
    """
    flat = gradients.flatten(1)
    tiny = torch.finfo(gradients.dtype).tiny
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    return (flat / l2_size(flat)[:, None].clamp_min(tiny)).view_as(gradients)


def _l1_size(vectors: Tensor) -> Tensor:
    """Sum of the absolute coordinates of each sample.

    :func:`torch.sum` adds up sums of pairs. ``torch.linalg.vector_norm`` adds one coordinate after another, and its
    result for 150,000 of one size is off by a thousandth.

    Args:
        vectors: shape (N, ...), float.

    Returns:
        shape (N,).

    Example:
        >>> _l1_size(torch.tensor([[3.0, -4.0]]))
        tensor([7.])
    """
    return vectors.flatten(1).abs().sum(dim=1)


def _l1_ascent(gradients: Tensor) -> Tensor:
    """Solve, for each sample g, ``max <g, d>`` subject to ``||d||_1 <= 1``.

    All weight goes to a coordinate of largest ``|g_i|``, with its sign: the maximum is ``||g||_inf``, the dual norm. Of
    equal ones the first is taken; the solution is 0 where g is 0.

    Args:
        gradients: shape (N, ...), float.

    Returns:
        shape (N, ...).

    Example:
        >>> _l1_ascent(torch.tensor([[0.5, -2.0, 2.0]]))
        tensor([[ 0., -1.,  0.]])
    """
    flat = gradients.flatten(1)
    places = flat.abs().argmax(dim=1, keepdim=True)
    return torch.zeros_like(flat).scatter_(1, places, flat.gather(1, places).sign()).view_as(gradients)


def _l1_on_sphere(noise: Tensor) -> Tensor:
    """Turn noise that is uniform on [-1, 1) into points that are uniform on the sphere ``||u||_1 = 1``.

    ``-log(1 - |noise|)`` is exponentially distributed, exponential variables over their sum are uniform on the simplex,
    and the noise's signs choose the sphere's facet (Devroye, "Non-uniform random variate generation", 1986, sect. V.2).

    Args:
        noise: shape (N, ...), float, in [-1, 1).

    Returns:
        shape (N, ...).

    Example:
        >>> _l1_size(_l1_on_sphere(torch.tensor([[0.5, -0.1, 0.9]])))
        tensor([1.])
    """
    flat = noise.flatten(1)
    tiny = torch.finfo(noise.dtype).tiny
    exponential = -torch.log1p(-flat.abs().clamp_max(1 - torch.finfo(noise.dtype).eps))
    return (flat.sign() * exponential / exponential.sum(dim=1, keepdim=True).clamp_min(tiny)).view_as(noise)


def _as_it_is(noise: Tensor) -> Tensor:
    return noise


def _wide(batch: Tensor) -> Tensor:
    return batch.float() if batch.dtype in (torch.float16, torch.bfloat16) else batch


# --- steps within the box ---------------------------------------------------------------------------------------------


def _l1_step_in_box(points: Tensor, gradients: Tensor, length: float) -> Tensor:
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
        >>> _l1_step_in_box(torch.tensor([[0.9, 0.5, 0.2]]), torch.tensor([[3.0, -2.0, 1.0]]), 0.3)
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


# --- projections onto ball and box ------------------------------------------------------------------------------------


def _onto_linf_ball_and_box(points: Tensor, centres: Tensor, radius: float) -> Tensor:
    """Project onto ``||u - c||_inf <= radius`` and [0, 1]: both are boxes, so each coordinate is clipped.

    Args:
        points: shape (N, ...), float.
        centres: shape (N, ...), in [0, 1].
        radius: of the ball, in pixel units.

    Returns:
        shape (N, ...).

    Example:
        >>> _onto_linf_ball_and_box(torch.tensor([[1.3, 0.3]]), torch.tensor([[0.9, 0.5]]), 0.15)
        tensor([[1.0000, 0.3500]])
    """
    return points.clamp(centres - radius, centres + radius).clamp_(0, 1)


def _onto_l2_ball_and_box(points: Tensor, centres: Tensor, radius: float) -> Tensor:
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
        >>> _onto_l2_ball_and_box(torch.tensor([[2.0, 0.9]]), torch.tensor([[0.7, 0.1]]), 0.5)
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


def _onto_l1_ball_and_box(points: Tensor, centres: Tensor, radius: float) -> Tensor:
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
        >>> _onto_l1_ball_and_box(torch.tensor([[2.0, 0.9]]), torch.tensor([[0.7, 0.1]]), 0.5)
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
    return _wide(batch.flatten(1))


def _room(ways: Tensor, origins: Tensor) -> Tensor:
    """How far each coordinate can go before it meets the box's border."""
    return (ways > 0).to(ways.dtype).sub_(origins).abs_()


# --- the norms by name ------------------------------------------------------------------------------------------------

NORMS = {
    norm.name: norm
    for norm in (
        Norm("linf", _linf_size, _linf_ascent, _onto_linf_ball_and_box, _as_it_is),
        Norm("l2", l2_size, _l2_ascent, _onto_l2_ball_and_box, _l2_ascent),
        Norm("l1", _l1_size, _l1_ascent, _onto_l1_ball_and_box, _l1_on_sphere, _l1_step_in_box),
    )
}
