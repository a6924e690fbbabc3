"""Peak memory of 60,000 points, above the data and the examples that are asked for, against that of 6,000."""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

from benchmarks.runner import Row, row
from lightning_poison.attacks import PGD, adversarial_paths
from lightning_poison.nets import StrideCNN

__all__ = ["run"]

FEW, MANY = 6_000, 60_000  # ten times the data
MOST = 2.0
JOBS = ("adversarial_paths", "PGD")


def run() -> list[Row]:
    """One fresh process a size: a peak can't be taken back."""
    rows = []
    for job in JOBS:
        few, many = (_in_a_process(job, count) for count in (FEW, MANY))
        subject, against = (f"{job}, {count:,} points, {size:.0f} MiB" for count, size in ((MANY, many), (FEW, few)))
        rows.append(row("memory", subject, against, many / few, MOST))
    return rows


def _in_a_process(job: str, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", job, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak() -> float:
    """Highest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _main(job: str, count: int) -> None:
    torch.manual_seed(0)
    net, images = StrideCNN(), torch.rand(count, 1, 28, 28)
    labels = net(images[:1]).argmax(1).expand(count).contiguous()
    _run(job, net, images[:256], labels[:256])  # what the libraries load at first use
    before = _peak()
    asked_for = _run(job, net, images, labels)
    print(_peak() - before - asked_for)


def _run(job: str, net: StrideCNN, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Run the job; the size of the examples that it returns, in MiB."""
    if job == "PGD":
        examples = PGD(eps=0.01, steps=2)(net, images, labels).examples
        return examples.numel() * examples.element_size() / 2**20
    adversarial_paths(net, images, labels, max_steps=5)
    return 0.0


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
