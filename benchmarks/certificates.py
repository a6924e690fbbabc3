"""Every comparison of certificates: smoothing of labels, exact certificates, smoothing of inputs."""

from __future__ import annotations

import importlib

from benchmarks.runner import Row

__all__ = ["run"]

PARTS = (
    "certificates_smoothing",
    "certificates_radii",
    "certificates_exact",
    "certificates_exact_memory",
    "certificates_input_smoothing",
)


def run() -> list[Row]:
    """The rows of each part, one after the other."""
    return [row for part in PARTS for row in importlib.import_module(f"benchmarks.{part}").run()]
