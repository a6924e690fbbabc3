"""Black box with scores: gradients estimated from central differences of scores along chosen directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.attacks.base import Attack, AttackResult, NormName, check_sizes
from lightning_poison.attacks.engine import ball_move, usual_chunk, walk
from lightning_poison.attacks.model import batch_layout, class_scores
from lightning_poison.attacks.samples import Samples
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer_field, check_number
from lightning_poison.functional.losses import margin
from lightning_poison.functional.norms import named_norm
from lightning_poison.functional.pixels import Pixels, Radius
from lightning_poison.functional.random_streams import generator

__all__ = ["FiniteDifferences", "coordinate_directions", "estimate_gradients", "random_directions"]


@dataclass(frozen=True)
class FiniteDifferences(Attack):
    """PGD on the margin, with a gradient that is estimated from scores: the network may be a black box.

    No derivative of the network is taken, so it may as well have none, or a masked one that is zero wherever one
    looks. A step asks for the scores of the point itself and of two more points for each direction:

    - "coordinates": central differences along every one of the D coordinates: 1 + 2 D queries a step, and the
      gradient up to O(sigma^2).
    - "random": an average over ``samples`` directions of random signs (Spall, "Multivariate stochastic approximation
      using a simultaneous perturbation gradient approximation", 1992; as an attack: Uesato et al., "Adversarial risk
      and the dangers of evaluating against weak attacks", 2018): 1 + 2 ``samples`` queries a step, unbiased for a
      linear score. With Gaussian directions (natural evolution strategies: Ilyas et al., "Black-box adversarial
      attacks with limited queries and information", 2018) the mean is the same; signs have the smaller variance, and
      clipped to the box, so that only images are asked for, they stay unbiased.

    A sample counts as fooled at the first point that fools; samples that are wrong without any attack count as
    fooled. ``details["queries"]`` counts the network's evaluations of each sample exactly. (Two images of a batch
    are evaluated besides, to learn which memory layout the network takes, three to learn whether it is stochastic, and
    the examples of one that is; the attack learns nothing from them.)

    Attributes:
        eps: radius in pixel units, such as 0.1 or ``8/255``; an l_inf radius lies in [0, 1].
        steps: number of steps.
        step_size: length of a step in pixel units; None: ``2.5 * eps / steps``, with the steps that are taken at most.
        norm: "linf", "l2" or "l1".
        directions: "coordinates" or "random".
        samples: directions of a step where they are random.
        sigma: distance of the two ends of a difference from the point, in pixel units. Small is near the derivative;
            where scores are rounded or flat, large sees over the step.
        max_queries: budget of each sample: no step is begun that could exceed it; None: unlimited.
        seed: of the random directions, which depend on each sample's position, not on batches or ranks.

    Raises:
        UserError: an argument is out of its range; on the call: the budget does not suffice for one step.

    Example:
        >>> weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> attack = FiniteDifferences(eps=0.2, steps=4)
        >>> result = attack(lambda x: (x @ weights).detach(), torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> result.fooled, result.details["queries"]
        (tensor([True]), tensor([6.], dtype=torch.float64))
    """

    eps: Radius = 0.1
    steps: int = 20
    step_size: Radius | None = None
    norm: NormName = "linf"
    directions: Literal["coordinates", "random"] = "coordinates"
    samples: int = 50
    sigma: Pixels = 0.01
    max_queries: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(self, self.norm)
        check_integer_field(self, "steps", minimum=1, remedy="use steps=20")
        check_choice("directions", self.directions, ("coordinates", "random"))
        check_integer_field(self, "samples", minimum=1, remedy="use samples=50")
        sigma = check_number("sigma", float(Pixels(self.sigma)), minimum=1e-4, maximum=0.5, remedy="use sigma=0.01")
        object.__setattr__(self, "sigma", sigma)
        if self.max_queries is not None:
            check_integer_field(self, "max_queries", minimum=1)

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        inputs = samples.inputs
        steps = self._affordable_steps(inputs.shape[1:].numel())
        step_size = 2.5 * self.eps / steps if self.step_size is None else self.step_size
        look = _ScoreLook(self, steps, model, samples)
        found = walk(inputs, look, ball_move(named_norm(self.norm), inputs, self.eps, step_size), max_steps=steps)
        examples = inputs if found.ends is None else found.ends
        details = {"queries": look.queries.double(), "zero_gradient": found.flat.double()}
        return AttackResult(examples, found.reached, "any iterate", details)

    def directions_a_step(self, size: int) -> int:
        """How many directions a step looks along, for inputs of ``size`` coordinates."""
        return size if self.directions == "coordinates" else self.samples

    def _affordable_steps(self, size: int) -> int:
        """Every look at a point costs one query, every step ``2 * directions`` more, and the last point a look."""
        if self.max_queries is None:
            return self.steps
        step = 1 + 2 * self.directions_a_step(size)
        if self.max_queries <= step:
            raise UserError(
                f"max_queries must be at least {step + 1} for one step along {self.directions_a_step(size)} "
                f"directions, got {self.max_queries}; raise it, or use directions=random with fewer samples"
            )
        return min(self.steps, (self.max_queries - 1) // step)


class _ScoreLook:
    """A look that estimates the margin's gradient from scores, and counts queries."""

    def __init__(
        self, attack: FiniteDifferences, steps: int, model: Callable[[Tensor], Tensor], samples: Samples
    ) -> None:
        self.attack, self.steps = attack, steps
        self.model, self.layout = model, batch_layout(model, samples.inputs)
        self.samples, self.ids = samples, samples.ids.tolist()
        self.at_once = 2 * usual_chunk(samples.inputs)
        self.queries = torch.zeros_like(samples.labels)
        self.looks = torch.zeros_like(self.queries)

    @torch.no_grad()
    def __call__(self, points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        scores = class_scores(self.model, self.layout(points))
        hit = self.samples[rows].fooled(scores)
        if self.samples.stochastic:
            hit = torch.zeros_like(hit)
        self.queries[rows] += 1
        gradients = None
        if with_gradient:
            gradients = torch.zeros_like(points)
            # Whoever is at the goal or at the limit takes no further step: nothing is asked for it.
            going_on = (~hit & (self.looks[rows] < self.steps)).nonzero().squeeze(1)
            if len(going_on):
                gradients[going_on] = self._estimate(points[going_on], rows[going_on])
        self.looks[rows] += 1
        return hit, gradients

    def _estimate(self, points: Tensor, rows: Tensor) -> Tensor:
        count = self.attack.directions_a_step(points.shape[1:].numel())
        self.queries[rows] += 2 * count
        if self.attack.directions == "coordinates":
            directions = coordinate_directions(points)
        else:
            keys = [(self.ids[row], step) for row, step in zip(rows.tolist(), self.looks[rows].tolist(), strict=True)]
            directions = random_directions(points, self.attack.seed, keys)
        sign, wanted = (1, self.samples.labels) if self.samples.targets is None else (-1, self.samples.targets)

        def objective(ends: Tensor, whose: Tensor) -> Tensor:
            return sign * margin(class_scores(self.model, self.layout(ends)), wanted[rows[whose]])

        return estimate_gradients(
            objective, points, directions, count=count, sigma=self.attack.sigma, at_once=self.at_once
        )


# --- central differences along chosen directions ----------------------------------------------------------------------

Directions = Callable[[int], Tensor]
"""The next k directions, shape (n or 1, k, D), of entries -1, 0 and 1."""


def coordinate_directions(points: Tensor) -> Directions:
    """The unit vectors e_1, ..., e_D in turn, the same for all points.

    Args:
        points: shape (n, ...), of D coordinates each.

    Example:
        >>> following = coordinate_directions(torch.rand(5, 3))
        >>> following(2)
        tensor([[[1., 0., 0.],
                 [0., 1., 0.]]])
        >>> following(1)
        tensor([[[0., 0., 1.]]])
    """
    size = points.shape[1:].numel()
    first = 0

    def following(count: int) -> Tensor:
        nonlocal first
        block = points.new_zeros(1, count, size)
        block[0, torch.arange(count), torch.arange(first, first + count)] = 1
        first += count
        return block

    return following


def random_directions(points: Tensor, seed: int, keys: Iterable[Sequence[int]]) -> Directions:
    """Independent random signs, from a stream of each point's own.

    Args:
        points: shape (n, ...), of D coordinates each.
        seed: the attack's seed.
        keys: for each point what tells its stream from others, such as the sample's position and the step.

    Example:
        >>> points = torch.rand(2, 3)
        >>> both = random_directions(points, 0, [(7, 0), (8, 0)])(4)
        >>> both[1].equal(random_directions(points[1:], 0, [(8, 0)])(4)[0]), both.unique()
        (True, tensor([-1.,  1.]))
    """
    size = points.shape[1:].numel()
    streams = [generator(seed, "directions", *key) for key in keys]

    def following(count: int) -> Tensor:
        # Integers are drawn one after another, so a stream doesn't depend on how many are asked for at once.
        signs = torch.stack([torch.empty(count, size).random_(0, 2, generator=stream) for stream in streams])
        return (2 * signs - 1).to(points)

    return following


def estimate_gradients(
    objective: Callable[[Tensor, Tensor], Tensor],
    points: Tensor,
    directions: Directions,
    *,
    count: int,
    sigma: float,
    at_once: int,
) -> Tensor:
    """Sum over directions u of ``(f(x + sigma u) - f(x - sigma u)) / s``, times u, for each point x.

    Both ends of a difference are clipped to the box [0, 1], so only images are asked for, and coordinate i is divided
    by the distance s_i between the two ends. Along unit vectors that is the gradient of a linear f exactly. Along
    random signs it is ``count`` times an unbiased estimate of it: ``E[u_i u_j] = 0`` for i != j leaves ``s_i g_i`` of
    ``u_i sum_j s_j g_j u_j``, and a single direction's variance is ``sum over j != i of (s_j g_j / s_i)^2``.

    Args:
        objective: maps points, shape (m, ...), and the rows that they belong to, shape (m,), to values, shape (m,).
        points: shape (n, ...), float, in [0, 1].
        directions: gives the next k of them.
        count: how many directions; each costs two values.
        sigma: distance to an end of the difference, in pixel units.
        at_once: how many values to ask for at once, where 2 n are fewer.

    Returns:
        shape (n, ...).

    Example:
        >>> points = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
        >>> unit_vectors = coordinate_directions(points)
        >>> estimate_gradients(lambda x, _: 3 * x[:, 0] - x[:, 1], points, unit_vectors, count=2, sigma=0.1, at_once=64)
        tensor([[ 3.0000, -1.0000]], dtype=torch.float64)
    """
    flat = points.flatten(1)
    spans = (flat + sigma).clamp(0, 1) - (flat - sigma).clamp(0, 1)
    total = torch.zeros_like(flat)
    block_size = max(1, at_once // (2 * max(1, len(flat))))
    for first in range(0, count, block_size):
        block = directions(min(block_size, count - first))
        shift = sigma * block
        ends = torch.stack((flat[:, None] + shift, flat[:, None] - shift)).clamp(0, 1)
        rows = torch.arange(len(flat), device=flat.device).repeat_interleave(ends.shape[2]).repeat(2)
        upper, lower = objective(ends.reshape(-1, *points.shape[1:]), rows).view(ends.shape[:3])
        total += ((upper - lower)[:, :, None] * block).sum(dim=1)
    # In half precision a short span may round to 0: nothing is seen along that coordinate.
    return (total / spans).nan_to_num(posinf=0, neginf=0).view_as(points)
