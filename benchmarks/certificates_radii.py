"""All tight radii of label-flip smoothing against the combinatorial evaluation as published."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln

from benchmarks.runner import Row, row
from lightning_poison.certificates.smoothing.thresholds import tight_thresholds

__all__ = ["run"]

LABELS, TARGET = 13_007, 1 / 1000
MEASURED = (1, 10, 50, 150, 12_900)  # numbers of flips at which the peer is run; the rest is extrapolated


def run() -> list[Row]:
    """Seconds for every r up to n; the peer's from its seconds a region at some r, times its regions at all r.

    Lee et al. (2019, theorem 3 and algorithm 1) sort, for each r, all regions of points that are equally far from the
    two label vectors. With two classes there are (r + 1)(n - r + 1), about n^3 / 6 for all r together.
    """
    rows = []
    for q in (0.01, 0.4):
        seconds, regions, errors = 0.0, 0, []
        for r in MEASURED:
            begun = time.perf_counter()
            theirs = _published(LABELS, q, r)
            seconds += time.perf_counter() - begun
            regions += (r + 1) * (LABELS - r + 1)
            errors.append(abs(float(tight_thresholds(torch.tensor([r]), q, 2)[0]) - theirs))
        table = _best_of_three(q)
        whole = seconds / regions * sum((r + 1) * (LABELS - r + 1) for r in range(LABELS + 1))
        subject = f"q = {q:g}, all r <= {LABELS:,} in {table:.3f} s (log thresholds agree to {max(errors):.0e})"
        against = f"Lee et al. with log-binomials, extrapolated from r in {MEASURED} to {whole:,.0f} s"
        rows.append(row("tight table", subject, against, table / whole, TARGET))
    return rows


def _best_of_three(q: float) -> float:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        tight_thresholds(torch.arange(LABELS + 1), q, 2)
        times.append(time.perf_counter() - begun)
    return min(times)


def _published(n: int, q: float, r: int) -> float:
    """Log of the least probability of an event that has probability 1/2 after r of n labels have been flipped."""
    changed, same = np.arange(r + 1)[:, None], np.arange(n - r + 1)[None, :]
    counts = _log_binomials(r)[:, None] + _log_binomials(n - r)[None, :]
    here, there = (same + changed).ravel(), (same + r - changed).ravel()  # flipped labels, seen from either vector
    order = np.argsort(here - there, kind="stable")[::-1]  # the likelihood ratio falls with it
    here, there, counts = here[order], there[order], counts.ravel()[order]
    before = counts + here * np.log(q) + (n - here) * np.log1p(-q)
    after = counts + there * np.log(q) + (n - there) * np.log1p(-q)
    mass = np.exp(after).cumsum()
    last = int(np.searchsorted(mass, 0.5))
    share = (0.5 - (mass[last - 1] if last else 0.0)) / np.exp(after[last])
    return float(np.logaddexp.reduce(np.append(before[:last], before[last] + np.log(share))))


def _log_binomials(n: int) -> NDArray[Any]:
    k = np.arange(n + 1)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
