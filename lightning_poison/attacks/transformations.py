"""A perturbation that survives rotation, shift and brightness: expectation over transformations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_poison.attacks.base import Attack, AttackResult, Criterion, NormName, check_sizes
from lightning_poison.attacks.engine import Look, ball_move, usual_chunk, walk
from lightning_poison.attacks.model import batch_layout, class_scores, input_gradients
from lightning_poison.attacks.samples import Samples, is_fooled
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_number_field
from lightning_poison.functional.losses import cross_entropy
from lightning_poison.functional.norms import named_norm
from lightning_poison.functional.pixels import Radius
from lightning_poison.functional.random_streams import kept_random_state, mix_seed

__all__ = ["ExpectationOverTransformations", "random_view", "usual_transforms"]


@dataclass(frozen=True)
class ExpectationOverTransformations(Attack):
    """Maximise ``E_t[log P(goal | t(x + d))]`` over d in the ball and x + d in [0, 1], t a random transformation.

    Athalye et al., "Synthesizing robust adversarial examples", 2018, section 2.2: a sign by the road is seen from many
    angles and in many lights, and one change of it has to fool in most of them. The goal's probability is the
    target's, or 1 minus the label's. Under a single transformation its logarithm rises in the same direction as the
    cross-entropy, but with slope p instead of 1 - p, p the label's probability: what counts in the mean are the
    transformations that don't fool yet.

    Each step follows the mean gradient of ``draws`` fresh transformations. Success is judged on ``evaluation_draws``
    others, which no step has seen: ``details["survival"]`` is the share of them under which an example fools, and a
    sample counts as fooled if the share is at least ``survival``. Samples that are wrong without any attack, seen as
    they are or in at least that share of the evaluation draws, count as fooled and are not attacked.

    All samples share a draw, which depends on seed, step and number alone, so batching and ranks don't matter (unless
    a transform draws for every pixel). What is seen is clipped to [0, 1].

    Attributes:
        eps: radius in pixel units, such as 0.1 or ``8/255``; an l_inf radius lies in [0, 1].
        steps: number of steps; all are taken.
        step_size: length of a step in pixel units; None: ``2.5 * eps / steps``.
        norm: "linf", "l2" or "l1".
        transforms: one or a list, applied in turn, such as torchvision.transforms.v2.RandomAffine; they take float
            tensors and pass gradients on. None: rotation by up to 20 degrees, shift by up to a tenth, brightness
            times 0.7 to 1.3.
        draws: transformations in a step.
        evaluation_transforms: what judges, if it isn't what the steps see; with torch.nn.Identity as ``transforms``
            that tells how much of a plain perturbation survives.
        evaluation_draws: transformations that judge.
        survival: share of them that has to be fooled.
        seed: of the draws.

    Raises:
        UserError: an argument is out of its range; on the call: a transform doesn't take float tensors or stops the
            gradient.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
        >>> attack = ExpectationOverTransformations(eps=0.1, steps=2, draws=2, evaluation_draws=4)
        >>> result = attack(net, torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64))
        >>> result.criterion, result.details["survival"].shape
        ('last iterate', torch.Size([3]))
    """

    eps: Radius = 0.1
    steps: int = 40
    step_size: Radius | None = None
    norm: NormName = "linf"
    transforms: Callable[..., Any] | list[Callable[..., Any]] | None = None
    draws: int = 8
    evaluation_transforms: Callable[..., Any] | list[Callable[..., Any]] | None = None
    evaluation_draws: int = 50
    survival: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(self, self.norm)
        check_integer_field(self, "steps", minimum=1, remedy="use steps=40")
        check_integer_field(self, "draws", minimum=1, remedy="use draws=8")
        check_integer_field(self, "evaluation_draws", minimum=1, remedy="use evaluation_draws=50")
        check_number_field(self, "survival", minimum=1e-9, maximum=1, remedy="use survival=0.5")
        for name in ("transforms", "evaluation_transforms"):
            for transform in _in_turn(getattr(self, name)):
                if not callable(transform) or isinstance(transform, type):
                    raise UserError(
                        f"{name} must be transforms such as torchvision.transforms.v2.RandomRotation(20), "
                        f"got {transform!r}"
                    )

    @property
    def success(self) -> Criterion:
        """Only the clean input and the end of the way are judged."""
        return "last iterate"

    def survivals(
        self, model: Callable[[Tensor], Tensor], examples: Tensor, labels: Tensor, targets: Tensor | None = None
    ) -> Tensor:
        """Share of the evaluation draws under which each example fools; call it within ``frozen_eval(model)``.

        It compares examples of any attack under the same transformations.

        Args:
            model: maps images to logits (n, K).
            examples: shape (N, ...), in [0, 1].
            labels: shape (N,), int64.
            targets: shape (N,), int64, or None.

        Returns:
            shape (N,), float64.
        """
        transforms = _in_turn(self.transforms if self.evaluation_transforms is None else self.evaluation_transforms)
        counts = torch.zeros(len(examples), dtype=torch.float64, device=examples.device)
        layout = batch_layout(model, examples)
        with torch.no_grad():
            for draw in range(self.evaluation_draws):
                for rows in torch.split(torch.arange(len(examples), device=examples.device), usual_chunk(examples)):
                    seen = random_view(transforms, examples[rows], self.seed, "evaluation", draw)
                    aims = None if targets is None else targets[rows]
                    counts[rows] += is_fooled(class_scores(model, layout(seen)), labels[rows], aims).double()
        return counts / self.evaluation_draws

    def judge(self, model: Callable[[Tensor], Tensor], examples: Tensor, samples: Samples) -> Tensor:
        """Whether examples fool under enough of the evaluation draws, each of which is a pass of its own."""
        return self.survivals(model, examples, samples.labels, samples.targets) >= self.survival

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        with torch.no_grad():
            fooled = torch.zeros_like(samples.labels, dtype=torch.bool)
            if len(samples) and not samples.stochastic:
                fooled = samples.fooled(class_scores(model, samples.inputs))
        survival = self.survivals(model, samples.inputs, samples.labels, samples.targets)
        fooled |= survival >= self.survival
        examples, flat = samples.inputs.clone(), torch.zeros_like(survival)
        step_size = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        for rows in torch.split((~fooled).nonzero().squeeze(1), usual_chunk(samples.inputs)):
            part = samples[rows]
            look = self._look(model, part)
            move = ball_move(named_norm(self.norm), part.inputs, self.eps, step_size)
            found = walk(part.inputs, look, move, max_steps=self.steps, chunk_size=len(rows))
            examples[rows] = part.inputs if found.ends is None else found.ends
            flat[rows] = found.flat.double()
            survival[rows] = self.survivals(model, examples[rows], part.labels, part.targets)
            fooled[rows] = survival[rows] >= self.survival
        return AttackResult(examples, fooled, self.success, {"survival": survival, "zero_gradient": flat})

    def _look(self, model: Callable[[Tensor], Tensor], samples: Samples) -> Look:
        """The mean gradient over the draws of the step; no point is at the goal before the last.

        All samples of the walk start together and none leaves early, so the looks count the steps.
        """
        transforms, layout, step = _in_turn(self.transforms), batch_layout(model, samples.inputs), 0

        def look(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
            nonlocal step
            hit = torch.zeros_like(rows, dtype=torch.bool)
            if not with_gradient:
                return hit, None
            total = torch.zeros_like(points)
            for draw in range(self.draws):
                points = points.detach().requires_grad_()
                seen = random_view(transforms, _inwards(points), self.seed, "step", step, draw)
                value = _goal_log_probability(class_scores(model, layout(seen)), samples[rows]).sum()
                total += input_gradients(value, points) / self.draws
            step += 1
            return hit, total

        return look


def _in_turn(transforms: Callable[..., Any] | Sequence[Callable[..., Any]] | None) -> Transforms:
    """One transform or several as a sequence; the usual ones for None."""
    if transforms is None:
        return usual_transforms()
    return tuple(transforms) if isinstance(transforms, Sequence) else (transforms,)


def _goal_log_probability(scores: Tensor, samples: Samples) -> Tensor:
    """Log P(goal), shape (n,): of the target, or of any class but the label."""
    if samples.targets is not None:
        return -cross_entropy(scores, samples.targets)
    own = functional.one_hot(samples.labels, scores.shape[1]).bool()
    others = scores.masked_fill(own, -torch.inf).logsumexp(dim=1)
    return functional.logsigmoid(others - scores.gather(1, samples.labels[:, None]).squeeze(1))


def _inwards(images: Tensor) -> Tensor:
    """A few roundings off 0 and 1: transforms clip, and at its ends a clip passes no gradient (PyTorch's choice)."""
    margin = 4 * torch.finfo(images.dtype).eps
    return images * (1 - 2 * margin) + margin


# --- random views of images -------------------------------------------------------------------------------------------

Transforms = Sequence[Callable[..., Any]]


def usual_transforms() -> Transforms:
    """Rotation by up to 20 degrees, shift by up to a tenth of the image, brightness times 0.7 to 1.3."""
    from torchvision.transforms import InterpolationMode, v2

    return (
        v2.RandomAffine(degrees=20, translate=(0.1, 0.1), interpolation=InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=0.3),
    )


def random_view(transforms: Transforms, images: Tensor, seed: int, *keys: int | str) -> Tensor:
    """One draw of the transforms, the same for all images, clipped to [0, 1] as a camera's picture is.

    Args:
        transforms: applied one after the other; they take a batch (n, C, H, W) of floats and draw from the global
            random streams of ``random``, NumPy or torch, which are seeded before and put back after.
        images: shape (n, C, H, W), in [0, 1].
        seed: the attack's seed.
        keys: what tells this draw from others.

    Returns:
        shape (n, ...), in [0, 1].

    Raises:
        UserError: a transform fails on such a batch, or gives no batch of floats, or stops the gradient.

    Example:
        >>> images = torch.rand(2, 1, 8, 8)
        >>> seen = random_view(usual_transforms(), images, 0, "draw", 3)
        >>> seen.equal(random_view(usual_transforms(), images, 0, "draw", 3)), seen.equal(images)
        (True, False)
    """
    views: Any = images
    with kept_random_state(mix_seed(seed, *keys), images.device):
        for transform in transforms:
            try:
                # Some transforms overwrite what their own derivative needs; they find a copy of it.
                with torch.autograd.graph.saved_tensors_hooks(torch.clone, _as_it_is):
                    views = transform(views)
            except (RuntimeError, TypeError, ValueError, AttributeError) as error:
                message = " ".join(str(error).split())
                raise UserError(
                    f"transforms: {_name(transform)} can't take a batch of float images: {message}; "
                    "check its arguments, and use transforms for tensors, such as those of torchvision.transforms.v2"
                ) from error
            _check_view(views, images, transform)
    return torch.clamp(views, 0, 1)


def _check_view(views: Any, images: Tensor, transform: Callable[..., Any]) -> None:
    if not isinstance(views, Tensor) or not views.is_floating_point() or len(views) != len(images):
        got = f"{views.dtype} of shape {tuple(views.shape)}" if isinstance(views, Tensor) else type(views).__name__
        raise UserError(
            f"transforms must give a float image for each of {len(images)} images, {_name(transform)} gave {got}; "
            "take it out"
        )
    if images.requires_grad and not views.requires_grad:
        raise UserError(
            f"transforms must pass gradients on, {_name(transform)} does not; take it out, or use one that computes "
            "with float tensors, such as those of torchvision.transforms.v2"
        )


def _as_it_is(saved: Tensor) -> Tensor:
    return saved


def _name(transform: Callable[..., Any]) -> str:
    return getattr(transform, "__name__", type(transform).__name__)
