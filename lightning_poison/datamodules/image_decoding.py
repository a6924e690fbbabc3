"""From a picture's file to pixels in [0, 1]."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lightning_poison.errors import UserError

__all__ = ["read_image"]

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EIGHT_BIT = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB"})
_WITH_ALPHA = frozenset({"LA", "PA", "RGBA"})
_KEYED = frozenset({"1", "L", "RGB"})
_KEY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}  # a key is written in the file's own depth, and decoded grey is not


def read_image(path: str | os.PathLike[str], side: int, grayscale: bool = False) -> Tensor:
    """The picture in a file, upright, on white, in [0, 1], resized to a square.

    - Pixels are divided by what is white at their depth: 1 to 8 bits a channel, 12 and 16 bits of grey. 16 bits of a
      colour are read as the upper eight of them.
    - Floats must lie in [0, 1] and are taken as they are. Integers of 32 bits, and signed ones, do not say what is
      white, and are refused.
    - The orientation that a camera wrote into the file is applied.
    - What is transparent shows white. A picture that vanishes on white is refused.
    - Palettes, CMYK, YCbCr and Lab become sRGB, without their colour profiles.
    - Of an animation, or a file of several pages, the first picture is taken.

    Args:
        path: of the file.
        side: of the square, in pixels.
        grayscale: one channel instead of three.

    Returns:
        shape (1 or 3, side, side), float32.

    Raises:
        UserError: the file is no picture, damaged or too large, or it does not say which value is white.
    """
    picture = _decoded(path)
    if picture.white is not None:
        return _deep_pixels(picture, side, grayscale)
    flat = _on_white(picture) if _has_alpha(picture) else picture.image
    if flat.mode not in _EIGHT_BIT:
        raise _refused(picture, f"has pixels of the kind {flat.mode}", "save it as RGB or as grey")
    if flat.mode == "LAB":  # Pillow goes nowhere else from there
        flat = flat.convert("RGB")
    flat = flat.convert("L" if grayscale else "RGB").resize((side, side), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(flat)).to(torch.float32) / 255
    return pixels.unsqueeze(0) if grayscale else pixels.permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class _Picture:
    """What is known of a decoded picture.

    Attributes:
        path: of its file.
        image: its pixels, upright.
        white: the value that is white, of grey pixels of more than 8 bits; None: they have 8 bits or less.
        inverted: whether 0 is white, of such pixels.
        key: the value that is transparent, in units of ``image``; None: no such value.
    """

    path: str | os.PathLike[str]
    image: Image.Image
    white: float | None
    inverted: bool
    key: int | tuple[int, ...] | None


def _decoded(path: str | os.PathLike[str]) -> _Picture:
    try:
        # Pillow maps a file that it opens by name into memory, and then mixes up the sides of a TIFF that is turned.
        with Path(path).open("rb") as stream, Image.open(stream) as file:
            raw_mode = _raw_mode(file)
            file.load()
            white, inverted = _white(file, path)
            return _Picture(path, _upright(file), white, inverted, _key(file, raw_mode, path))
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"the image {path} is too large to be read ({_line(error)}); scale it down or remove it, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except UnidentifiedImageError as error:
        reason = "the file is empty" if Path(path).stat().st_size == 0 else "nothing that Pillow knows as an image"
        raise UserError(f"cannot read the image {path} ({reason}); save it as PNG, or remove the file") from error
    except OSError as error:
        remedy = "repair or remove the file" if error.errno is None else "see that it is there and may be read"
        raise UserError(f"cannot read the image {path} ({_line(error)}); {remedy}") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        raise UserError(f"cannot read the image {path} ({_line(error)}); repair or remove the file") from error


def _line(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()).rstrip(".") or type(error).__name__


def _raw_mode(file: Image.Image) -> str:
    """How pixels are laid out in the file, where Pillow says so before it has read them."""
    tiles: Any = getattr(file, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _white(file: Image.Image, path: str | os.PathLike[str]) -> tuple[float | None, bool]:
    """The value that is white, and whether 0 is white instead; None for pixels of at most 8 bits."""
    tags: Any = getattr(file, "tag_v2", {})
    inverted = tags.get(_PHOTOMETRIC) == 0
    if file.mode.startswith("I;16"):
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        return 2.0**bits - 1, inverted
    if file.mode == "F":
        return 1.0, inverted
    if file.mode == "I":
        if file.format not in ("PNG", "PPM"):
            raise UserError(
                f"the image {path} has signed or 32-bit integers, which do not say what is white; "
                "save it with 8 or 16 unsigned bits, or as floats in [0, 1]"
            )
        return 65535.0, False  # Pillow scales every PGM of more than 8 bits to this
    return None, False


def _upright(file: Image.Image) -> Image.Image:
    if file.format == "TIFF":  # Pillow has turned it, and may not say so
        return file
    try:
        orientation = file.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001  # metadata that cannot be parsed turns no picture, in any viewer
        return file
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return file if turn is None else file.transpose(turn)


def _key(file: Image.Image, raw_mode: str, path: str | os.PathLike[str]) -> int | tuple[int, ...] | None:
    key = file.info.get("transparency")
    if key is None or isinstance(key, bytes) or not (file.mode in _KEYED or file.mode.startswith("I")):
        return None
    if raw_mode.startswith("RGB;16"):
        raise UserError(
            f"the image {path} has a transparent colour of 16 bits a channel, of which Pillow reads eight; "
            "save it with an alpha channel"
        )
    return tuple(key) if isinstance(key, (tuple, list)) else int(key) * _KEY_SCALES.get(raw_mode, 1)


def _deep_pixels(picture: _Picture, side: int, grayscale: bool) -> Tensor:
    """Grey pixels of more than 8 bits; a resize in floats keeps them all."""
    values = np.asarray(picture.image).astype(np.float32)
    pixels = values / np.float32(picture.white)
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails too
        got = f"[{pixels.min():g}, {pixels.max():g}]"
        raise _refused(picture, f"has floats in {got}", "save it with pixels in [0, 1], or with 8 or 16 unsigned bits")
    pixels = 1 - pixels if picture.inverted else pixels
    if picture.key is not None:
        shown = np.where(values == picture.key, np.float32(1), pixels)
        _check_visible(picture, shown, values == picture.key, pixels)
        pixels = shown
    resized = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    grey = torch.from_numpy(np.array(resized)).clamp(0, 1).unsqueeze(0)
    return grey if grayscale else grey.repeat(3, 1, 1)


def _has_alpha(picture: _Picture) -> bool:
    image = picture.image
    of_palette = image.mode == "P" and "transparency" in image.info
    return image.mode in _WITH_ALPHA or of_palette or picture.key is not None


def _on_white(picture: _Picture) -> Image.Image:
    """The picture without its alpha, on white, of 8 bits; rounded to the nearest."""
    if picture.key is None:
        image = picture.image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] == 255:
            return image.convert("RGB")
        layers = np.asarray(image).astype(np.uint16)
        colours, alpha = layers[..., :3], layers[..., 3:]
    else:
        image = picture.image.convert("L") if picture.image.mode == "1" else picture.image
        colours = np.atleast_3d(np.asarray(image)).astype(np.uint16)
        alpha = np.where((colours == picture.key).all(axis=2, keepdims=True), 0, 255).astype(np.uint16)
    shown = 255 - ((255 - colours) * alpha + 127) // 255
    _check_visible(picture, shown, alpha, colours)
    return Image.fromarray(shown.astype(np.uint8).squeeze(2) if shown.shape[2] == 1 else shown.astype(np.uint8))


def _check_visible(picture: _Picture, shown: np.ndarray, *layers: np.ndarray) -> None:
    if _is_uniform(shown) and not all(_is_uniform(layer) for layer in layers):
        raise _refused(picture, "vanishes on white", "save it without transparency, on another colour")


def _is_uniform(pixels: np.ndarray) -> bool:
    rows = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
    return bool((rows == rows[0]).all())


def _refused(picture: _Picture, what: str, remedy: str) -> UserError:
    return UserError(f"the image {picture.path} {what}; {remedy}")
