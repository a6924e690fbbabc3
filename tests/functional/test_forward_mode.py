"""Derivatives in one direction, against the closed form, and in silence."""

from __future__ import annotations

import subprocess
import sys

import torch

from lightning_poison.functional.tangents import jvp


def test_equals_the_closed_form() -> None:
    weights, direction = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
    point = torch.randn(4, dtype=torch.float64)
    value, derivative = jvp(lambda matrix: (matrix @ point).exp(), (weights,), (direction,))
    assert torch.equal(value, (weights @ point).exp())
    assert torch.allclose(derivative, value * (direction @ point))


def test_a_fresh_process_warns_of_nothing() -> None:
    code = (
        "import torch; from lightning_poison.functional.tangents import jvp; "
        "jvp(torch.sin, (torch.ones(2),), (torch.ones(2),))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "FutureWarning" not in done.stderr
