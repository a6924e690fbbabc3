"""The plane through three points, and what a network predicts on it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.engine import usual_chunk
from lightning_poison.attacks.model import check_floats, class_scores, frozen_eval
from lightning_poison.attacks.stochastic import StochasticVictimWarning, is_stochastic
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_number

__all__ = ["DecisionPlane", "decision_plane"]

_FLATTEST = 1e-6  # the sine of the smallest angle at the origin that still spans a plane


@dataclass(frozen=True)
class DecisionPlane:
    """Predictions on a grid of a plane, all on the CPU; coordinates are Euclidean distances in pixel units.

    Attributes:
        x: shape (W,), float64, rising: distance from the origin along the line to the first point.
        y: shape (H,), float64, rising: distance from that line, on the second point's side.
        predictions: shape (H, W), int64.
        confidence: shape (H, W), float64: probability of the predicted class.
        lead: shape (H, W), float64: how far its score is above the second highest; 0 on the boundary.
        anchors: shape (3, 2), float64: where origin, first and second point lie.
        origin: shape (D,), float64: the flattened origin.
        basis: shape (2, D), float64: the orthonormal directions of x and y.
    """

    x: Tensor
    y: Tensor
    predictions: Tensor
    confidence: Tensor
    lead: Tensor
    anchors: Tensor
    origin: Tensor
    basis: Tensor

    def project(self, points: Tensor) -> Tensor:
        """The coordinates of the nearest points of the plane.

        Args:
            points: shape (n, ...), of the origin's size.

        Returns:
            shape (n, 2), float64.
        """
        return (points.detach().cpu().double().flatten(1) - self.origin) @ self.basis.T


def decision_plane(
    model: Callable[[Tensor], Tensor],
    origin: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    resolution: int = 101,
    margin: float = 0.25,
    chunk_size: int | None = None,
) -> DecisionPlane:
    """Predictions on the plane through three points of input space.

    The plane's axes are the orthonormal pair that Gram and Schmidt make of ``first - origin`` and ``second - origin``.
    Cells of the grid are squares. Points of the plane may lie outside [0, 1]: what the network says of them is shown
    all the same. Of a network whose scores of the same inputs differ from pass to pass each point is one draw, and a
    warning says so (:class:`~lightning_poison.attacks.stochastic.StochasticVictimWarning`).

    Args:
        model: maps (N, ...) to logits (N, K); put in eval mode and left as found.
        origin: shape (...): a sample without batch dimension.
        first: of the same shape, such as the end of the origin's adversarial path.
        second: of the same shape, on no line with the others, such as a point of another class.
        resolution: number of cells along the longer side.
        margin: how far the grid goes beyond the three points, as a share of their spread.
        chunk_size: how many points the network sees at once; None: as many as suit the device.

    Raises:
        UserError: the points lie on one line or differ in shape, or the model's output is unusable.

    Example:
        >>> scores = lambda x: torch.stack([x[:, 0], 1 - x[:, 0]], dim=1)
        >>> corners = torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.5, 1.0])
        >>> plane = decision_plane(scores, *corners, resolution=4)
        >>> plane.predictions[0].tolist(), plane.anchors[2].tolist()
        ([1, 1, 0, 0], [0.5, 1.0])
    """
    resolution = check_integer("resolution", resolution, minimum=2)
    margin = check_number("margin", margin, minimum=0, remedy="a quarter of the spread is usual")
    if chunk_size is not None:
        chunk_size = check_integer("chunk_size", chunk_size, minimum=1)
    check_floats(origin[None])
    start, basis, anchors = _frame(origin, first, second)
    x, y = _axes(anchors, resolution, margin)
    blocks = []
    with frozen_eval(model), torch.no_grad():
        sample = origin.detach().clone()
        if is_stochastic(model, torch.stack([origin, first, second, origin]).to(sample)):
            warnings.warn(StochasticVictimWarning("each cell of a decision plane shows one draw"), stacklevel=2)
        places = torch.cartesian_prod(y, x).flip(1)  # row by row, as the grid is read
        for block in torch.split(places, chunk_size or usual_chunk(sample[None])):
            points = (start + block @ basis).to(sample).view(len(block), *sample.shape)
            blocks.append(_judged(class_scores(model, points)))
    predictions, confidence, lead = (torch.cat(parts).view(len(y), len(x)) for parts in zip(*blocks, strict=True))
    return DecisionPlane(x, y, predictions, confidence, lead, anchors, start, basis)


def _judged(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, its probability, and its lead over the second highest score, (n,) each, on the CPU."""
    scores = scores.cpu().double()  # half precision would be too coarse
    highest = scores.topk(2, dim=1).values
    return scores.argmax(dim=1), scores.softmax(dim=1).amax(dim=1), highest[:, 0] - highest[:, 1]


def _frame(origin: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The origin (D,), the basis (2, D) and the coordinates of the three points (3, 2), float64."""
    if not origin.shape == first.shape == second.shape:
        raise UserError(
            f"the three points must have one shape, got {tuple(origin.shape)}, {tuple(first.shape)} and "
            f"{tuple(second.shape)}; give samples without batch dimension"
        )
    start, one, two = (
        check_finite(name, point.detach().cpu().double().flatten(), remedy="choose other points")
        for name, point in (("origin", origin), ("first", first), ("second", second))
    )
    along, aside = one - start, two - start
    length = along.norm()
    across = aside - (aside @ along) / length.square().clamp_min(1e-300) * along
    if not length or across.norm() <= _FLATTEST * aside.norm():
        raise UserError("the three points must span a plane, but they lie on one line; choose another second point")
    basis = torch.stack([along / length, across / across.norm()])
    return start, basis, torch.stack([torch.zeros_like(start), along, aside]) @ basis.T


def _axes(anchors: Tensor, resolution: int, margin: float) -> tuple[Tensor, Tensor]:
    """The centres of square cells that cover the anchors and a margin."""
    low, high = anchors.min(dim=0).values, anchors.max(dim=0).values
    spread = high - low
    edge = margin * spread.max()
    low, high = low - edge, high + edge
    cell = float((high - low).max()) / resolution
    counts = [max(2, min(resolution, math.ceil(side / cell - 1e-9))) for side in (high - low).tolist()]
    middle = (low + high) / 2
    x, y = (
        centre + cell * (torch.arange(count, dtype=torch.float64) - (count - 1) / 2)
        for centre, count in zip(middle.tolist(), counts, strict=True)
    )
    return x, y
