"""Argument checks with one wording."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

import torch
from torch import Tensor

from lightning_poison.errors import UserError

__all__ = [
    "check_choice",
    "check_finite",
    "check_integer",
    "check_kind",
    "check_labels",
    "check_number",
    "check_pixels",
    "kind_shown",
    "nearest_names",
]

_ROUNDING = 1e-5  # a bicubic resize of a white image in float32 leaves 1e-6
_OVERSHOOT = 0.45  # at an edge, a bicubic resize without antialiasing adds at most this


def check_integer(name: str, value: int, *, minimum: int, remedy: str = "") -> int:
    """Return ``value`` if it is an integer of at least ``minimum``.

    Raises:
        UserError: it is not.

    Example:
        >>> check_integer("steps", 40, minimum=1)
        40
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UserError(_sentence(name, f"must be an integer of at least {minimum}", value, remedy))
    return value


def check_number(
    name: str, value: float, *, minimum: float = -math.inf, maximum: float = math.inf, remedy: str = ""
) -> float:
    """Return ``value`` as a float if it is finite and lies in [``minimum``, ``maximum``].

    Raises:
        UserError: it does not.

    Example:
        >>> check_number("fraction", 0.5, minimum=0, maximum=1)
        0.5
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(_sentence(name, "must be a finite number", value, remedy))
    if not minimum <= value <= maximum:
        raise UserError(_sentence(name, f"must lie in [{minimum:g}, {maximum:g}]", value, remedy))
    return float(value)


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        UserError: it is not; the message lists the choices.

    Example:
        >>> check_choice("norm", "l2", ["linf", "l2"])
        'l2'
    """
    known = list(choices)
    if value not in known:
        raise UserError(_sentence(name, f"must be one of {', '.join(known)}", value, ""))
    return value


def check_kind(name: str, value: object, kind: type, example: str, *, optional: bool = False) -> None:
    """Refuse a value that is no object of a class.

    Args:
        name: what to call it in the message.
        value: the value.
        kind: the class.
        example: how such an object is made.
        optional: whether None will do, too.

    Raises:
        UserError: it is none.

    Example:
        >>> check_kind("path", 5, str, "'flips.csv'")
        Traceback (most recent call last):
        lightning_poison.errors.UserError: path must be a str such as 'flips.csv', got 5
    """
    if not (isinstance(value, kind) or (optional and value is None)):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise UserError(f"{name} must be {article} {kind.__name__} such as {example}, got {kind_shown(value)}")


def kind_shown(value: object) -> str:
    """A plain value as it is written, else the name of its class; a class as such.

    Example:
        >>> kind_shown("x"), kind_shown(torch.nn.ReLU()), kind_shown(torch.nn.ReLU)
        ("'x'", 'ReLU', 'the class ReLU')
    """
    if value is None or isinstance(value, (str, int, float, list, tuple)):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_finite(name: str, values: Tensor, *, remedy: str = "") -> Tensor:
    """Return ``values`` if no entry is NaN or infinite.

    Raises:
        UserError: some entry is; the message says how many.
    """
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise UserError(_sentence(name, "must be finite", f"{bad} NaN or infinite of {values.numel()} values", remedy))
    return values


def check_pixels(name: str, pixels: Tensor, remedy: str | None = None) -> Tensor:
    """Return pixels that lie in [0, 1]; what the rounding of a resize leaves outside is cut off.

    Args:
        name: what to call them in the message.
        pixels: any shape, float.
        remedy: of pixels that lie further outside; None: the one for a normalisation or an overshooting resize.

    Returns:
        the same shape; ``pixels`` itself where nothing is cut off.

    Raises:
        UserError: some lie further outside, or are NaN or infinite.

    Example:
        >>> check_pixels("inputs", torch.tensor([0.5, 1.0000002]))
        tensor([0.5000, 1.0000])
    """
    if not pixels.numel():
        return pixels
    low, high = (float(bound) for bound in torch.aminmax(pixels))  # NaN where any pixel is
    if not (math.isfinite(low) and math.isfinite(high)):
        check_finite(name, pixels, remedy="remove the broken samples")
    if low >= 0 and high <= 1:
        return pixels
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return pixels.clamp(0, 1)
    if remedy is None:
        remedy = "take the normalisation out of the data and make it the model's first layer"
        if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
            remedy = (
                "if a transform overshoots, as a bicubic resize does, end it with torch.nn.Hardtanh(0, 1); "
                "if it normalises, make that the model's first layer"
            )
    raise UserError(f"{name} must lie in [0, 1], got [{low:.4g}, {high:.4g}]; {remedy}")


def check_labels(name: str, labels: Tensor, num_classes: int) -> Tensor:
    """Return ``labels`` if they form an integer vector with values in [0, ``num_classes``).

    Args:
        name: what to call them in the message.
        labels: shape (n,), any integer dtype.
        num_classes: the number of classes K.

    Raises:
        UserError: they do not; the message names the first offending row.
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        got = f"shape {tuple(labels.shape)}, dtype {labels.dtype}"
        raise UserError(_sentence(name, "must be a vector of integer class numbers", got, ""))
    classes = labels.long()  # small integers can't be compared with numbers that they can't hold
    wrong = (classes < 0) | (classes >= num_classes)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        message = f"{name} must lie in [0, {num_classes - 1}], got {int(labels[row])} at row {row}"
        raise UserError(f"{message}; check num_classes={num_classes} against the data")
    return labels


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Names of ``known`` that resemble ``name``, the most similar first.

    Example:
        >>> nearest_names("RandomPoint", ["FromFile", "RandomPoints"])
        ['RandomPoints']
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    if not matches:
        return []
    best = _similarity(name, matches[0])
    return [by_lower[match] for match in matches if _similarity(name, match) > best - 0.1]


def _similarity(name: str, other: str) -> float:
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()


def _sentence(name: str, rule: str, value: object, remedy: str) -> str:
    sentence = f"{name} {rule}, got {value!r}" if not isinstance(value, str) else f"{name} {rule}, got {value}"
    return f"{sentence}; {remedy}" if remedy else sentence
