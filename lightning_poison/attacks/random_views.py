"""Random views of images: transforms whose draws can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import mix_seed

__all__ = ["random_view", "usual_transforms"]

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
