"""Argument checks with one wording."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_poison.errors import UserError

__all__ = [
    "as_integer",
    "as_list",
    "as_number",
    "check_choice",
    "check_finite",
    "check_integer",
    "check_integer_field",
    "check_kind",
    "check_labels",
    "check_number",
    "check_number_field",
    "check_pixels",
    "declared_classes",
    "kind_shown",
    "nearest_names",
]

_ROUNDING = 1e-5  # a bicubic resize of a white image in float32 leaves 1e-6
_OVERSHOOT = 0.45  # at an edge, a bicubic resize without antialiasing adds at most this
_SHOWN = 4


def as_integer(value: object) -> int | None:
    """The plain integer that ``value`` is, or None: an int, a NumPy integer, an array or a tensor without axes.

    Example:
        >>> as_integer(np.int64(3)), as_integer(torch.tensor(3)), as_integer(3.0), as_integer(True)
        (3, 3, None, None)
    """
    number = as_number(value)
    return number if isinstance(number, int) else None


def as_list(value: object) -> list[Any] | None:
    """The entries of a sequence (list, tuple, range, ListConfig, vector) as a list; None of anything else, or of text.

    Example:
        >>> as_list((0, 1)), as_list("01"), as_list({0, 1})
        ([0, 1], None, None)
    """
    if isinstance(value, (Tensor, np.ndarray)):
        return list(value.tolist()) if value.ndim == 1 else None
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None


def as_number(value: object) -> int | float | None:
    """The plain int or float that ``value`` is, or None: a number of Python or NumPy, an array or tensor without axes.

    Example:
        >>> as_number(np.float32(0.5)), as_number(torch.tensor(2)), as_number(torch.tensor([2])), as_number(True)
        (0.5, 2, None, None)
    """
    if isinstance(value, (Tensor, np.ndarray)):
        value = value.item() if value.ndim == 0 else None
    elif isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value


def check_integer(name: str, value: int, *, minimum: int, remedy: str = "") -> int:
    """Return ``value`` as a plain int if it is an integer (:func:`as_integer`) of at least ``minimum``.

    Raises:
        UserError: it is not.

    Example:
        >>> check_integer("steps", np.int64(40), minimum=1)
        40
    """
    number = as_integer(value)
    if number is None or number < minimum:
        raise UserError(_sentence(name, f"must be an integer of at least {minimum}", value, remedy))
    return number


def check_integer_field(owner: object, name: str, *, minimum: int, remedy: str = "") -> None:
    """:func:`check_integer` of a field of a dataclass, frozen or not, which then holds the plain int.

    Raises:
        UserError: it is none, or too small.
    """
    object.__setattr__(owner, name, check_integer(name, getattr(owner, name), minimum=minimum, remedy=remedy))


def declared_classes(owner: object, attribute: str = "num_classes") -> int | None:
    """The number of classes that a data module declares; None where it declares none (yet).

    A property that fails, as many do before ``setup``, counts as not declared: ask again later. A user's mistake that
    it finds is raised.

    Args:
        owner: a data module, or None.
        attribute: where the number stands: whatever :func:`as_integer` takes.

    Raises:
        UserError: the property raised one.

    Example:
        >>> from types import SimpleNamespace
        >>> declared_classes(SimpleNamespace(num_classes=torch.tensor(10))), declared_classes(None)
        (10, None)
    """
    try:
        declared = getattr(owner, attribute, None)
    except UserError:
        raise
    except Exception:  # noqa: BLE001  # somebody's property may fail in any way before there are data
        return None
    if declared is None:
        return None
    number = as_integer(declared)
    if number is None or number < 1:
        warnings.warn(
            f"{type(owner).__name__}.{attribute} must be an integer of at least 1, got {kind_shown(declared)}; "
            "the classes are counted by the labels instead",
            stacklevel=2,
        )
        return None
    return number


def check_number(
    name: str, value: float, *, minimum: float = -math.inf, maximum: float = math.inf, remedy: str = ""
) -> float:
    """Return ``value`` as a plain float if it is finite and lies in [``minimum``, ``maximum``].

    Numbers of NumPy, arrays and tensors without axes are numbers, too.

    Raises:
        UserError: it does not.

    Example:
        >>> check_number("fraction", 0.5, minimum=0, maximum=1)
        0.5
    """
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise UserError(_sentence(name, "must be a finite number", value, remedy))
    if not minimum <= number <= maximum:
        raise UserError(_sentence(name, f"must lie in [{minimum:g}, {maximum:g}]", value, remedy))
    return float(number)


def check_number_field(
    owner: object, name: str, *, minimum: float = -math.inf, maximum: float = math.inf, remedy: str = ""
) -> None:
    """:func:`check_number` of a field of a dataclass, frozen or not, which then holds a plain int or float.

    Raises:
        UserError: it is none, or out of range.
    """
    value = getattr(owner, name)
    check_number(name, value, minimum=minimum, maximum=maximum, remedy=remedy)
    object.__setattr__(owner, name, as_number(value))


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
    """A plain value as it is written; else its class, with shape and dtype, keys, or the classes of its entries.

    Example:
        >>> kind_shown("x"), kind_shown(torch.nn.ReLU()), kind_shown(torch.nn.ReLU)
        ("'x'", 'ReLU', 'the class ReLU')
        >>> kind_shown(torch.zeros(8, 10)), kind_shown({"x": 1}), kind_shown([7, torch.zeros(2)])
        ('Tensor of shape (8, 10), dtype torch.float32', "dict with 'x'", 'list of (int, Tensor)')
    """
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__} of shape {tuple(value.shape)}, dtype {value.dtype}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with {', '.join(map(repr, value))}" if value else type(value).__name__
    if isinstance(value, (list, tuple)) and not all(map(_is_plain, value)):
        kinds = ", ".join(type(entry).__name__ for entry in value[:_SHOWN])
        return f"{type(value).__name__} of ({kinds}{', ...' if len(value) > _SHOWN else ''})"
    if _is_plain(value):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


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
    if not isinstance(labels, Tensor):
        got, remedy = kind_shown(labels), "write torch.as_tensor(labels)"
        raise UserError(_sentence(name, "must be a tensor of integer class numbers", got, remedy))
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        got = f"shape {tuple(labels.shape)}, dtype {labels.dtype}"
        raise UserError(_sentence(name, "must be a vector of integer class numbers", got, ""))
    classes = labels.long()  # small integers can't be compared with numbers that they can't hold
    wrong = (classes < 0) | (classes >= num_classes)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        message = f"{name} must lie in [0, {num_classes - 1}], got {int(classes[row])} at row {row}"
        if int(classes.min()) >= 1 and int(classes.max()) == num_classes:
            raise UserError(f"{message}; they seem to count from 1: number the classes from 0, as labels - 1 does")
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
    many = isinstance(value, (Tensor, np.ndarray)) and value.ndim
    shown = value if isinstance(value, str) else kind_shown(value) if many else repr(value)
    sentence = f"{name} {rule}, got {shown}"
    return f"{sentence}; {remedy}" if remedy else sentence
