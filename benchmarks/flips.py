"""Every comparison about crafting flips: path lengths, class graphs, the bilevel problem, ensembles of victims."""

from __future__ import annotations

import importlib

from benchmarks.runner import Row

__all__ = ["run"]

PARTS = ("flips_paths", "flips_graphs", "flips_meta", "flips_ensembles")


def run() -> list[Row]:
    """The rows of each part, one after the other."""
    return [row for part in PARTS for row in importlib.import_module(f"benchmarks.{part}").run()]
