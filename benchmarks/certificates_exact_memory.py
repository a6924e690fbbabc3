"""The exact certificate of a million points of 512 dimensions, read from disk: its peak memory against 8 GiB."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.runner import Row, row
from lightning_poison.certificates import certify_label_linear
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.ridge import Ridge

__all__ = ["run"]

TRAINING, DIMENSIONS, CLASSES, POINTS = 1_000_000, 512, 10, 64
BLOCK, LIMIT_GIB = 20_000, 8.0


def run() -> list[Row]:
    """In a process of its own: a peak can't be taken back. It includes the file's pages that are mapped (2 GiB)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.certificates_exact_memory", folder]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak, seconds, radius = map(float, output.split())
    subject = (
        f"exact ridge certificate, {POINTS} points, {TRAINING:,} x {DIMENSIONS} on disk: {peak:.1f} GiB, "
        f"{seconds:.0f} s, mean radius {radius:.0f}"
    )
    return [row("certificates", subject, f"{LIMIT_GIB:g} GiB", peak / LIMIT_GIB, 1.0)]


def _main(folder: str) -> None:
    path = str(Path(folder) / "features")
    features = torch.from_file(path, shared=True, size=TRAINING * DIMENSIONS, dtype=torch.float32)
    features = features.reshape(TRAINING, DIMENSIONS)
    stream = generator(0, "a million points")
    centres = torch.randn(CLASSES, DIMENSIONS, generator=stream)
    labels = torch.randint(CLASSES, (TRAINING,), generator=stream)
    for rows in torch.split(torch.arange(TRAINING), BLOCK):
        features[rows[0] : rows[-1] + 1] = centres[labels[rows]] + 4 * torch.randn(
            len(rows), DIMENSIONS, generator=stream
        )
    points = centres[torch.arange(POINTS) % CLASSES] + 4 * torch.randn(POINTS, DIMENSIONS, generator=stream)
    begun = time.perf_counter()
    certificate = certify_label_linear(Ridge(features, 0.3).weight_chunks(points, rows=POINTS), labels, CLASSES)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print(peak, seconds, certificate.radius.double().mean().item())


if __name__ == "__main__":
    _main(sys.argv[1])
