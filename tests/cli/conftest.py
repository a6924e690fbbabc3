"""Run the command line in this process, on data made on the spot."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_poison.__main__ import main

TINY = (
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--compare_with_clean=false",
)


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run_cli("fit", ...)`` returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def made_up_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torchvision root with MNIST's files but other pictures: each class is a bright band."""
    root = tmp_path_factory.mktemp("mnist")
    for part, n in (("train", 400), ("t10k", 100)):
        random = np.random.default_rng(n)
        labels = np.arange(n) % 10
        images = random.integers(0, 120, (n, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 5] += 130
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        header = struct.pack(">IIII", 0x803, n, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.astype(np.uint8).tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, n) + labels.astype(np.uint8).tobytes()
        )
    return root
