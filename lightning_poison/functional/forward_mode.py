"""Derivatives in one direction."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

__all__ = ["jvp"]


def jvp(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """``torch.func.jvp``, without the warnings that PyTorch gives about itself when it prepares its first one.

    Args:
        function: of the primals.
        primals: where the derivative is taken.
        tangents: its direction, of the same structure.

    Returns:
        the function's value and its derivative.

    Example:
        >>> jvp(torch.square, (torch.tensor(3.0),), (torch.tensor(1.0),))
        (tensor(9.), tensor(6.))
    """
    _prepare()
    pair: tuple[Any, Any] = torch.func.jvp(function, primals, tangents)  # type: ignore[assignment]  # no auxiliary output
    return pair


@cache
def _prepare() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit.script, which it uses itself
        torch.func.jvp(torch.neg, (torch.zeros(()),), (torch.zeros(()),))
