"""The one thing that the small networks check of their images."""

from __future__ import annotations

from lightning_poison.errors import UserError

__all__ = ["check_image_size"]


def check_image_size(image_size: int, multiple: int) -> None:
    """Refuse a size that repeated halving does not divide.

    Args:
        image_size: height and width in pixels.
        multiple: what it must be a positive multiple of.

    Raises:
        UserError: it is not.
    """
    if image_size < multiple or image_size % multiple:
        raise UserError(f"image_size must be a multiple of {multiple}, got {image_size}; pad or resize the images")
