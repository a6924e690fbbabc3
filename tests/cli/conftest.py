"""Run the command line in this process, on data made on the spot."""

from __future__ import annotations

import io
import struct
import tarfile
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


@pytest.fixture
def refused(run_cli: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """``refused("fit", ...)`` ends with exit code 2 and one line on standard error, which it returns."""

    def run(*arguments: str) -> str:
        code, _, err = run_cli(*arguments)
        lines = [line for line in err.splitlines() if line != "Seed set to 0"]
        assert (code, len(lines)) == (2, 1), err
        return lines[0]

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


@pytest.fixture(scope="session")
def made_up_imdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of reviews in the published layout, made of a few words."""
    folder = tmp_path_factory.mktemp("imdb")
    random = np.random.default_rng(0)
    words = {"neg": ["dull", "dreadful", "boring", "awful"], "pos": ["moving", "splendid", "bright", "brilliant"]}
    filler = [f"word{number}" for number in range(40)]
    with tarfile.open(folder / "aclImdb.tar.gz", "w:gz") as archive:
        for part in ("train", "test"):
            for label, chosen in words.items():
                for number in range(60):
                    content = " ".join([*random.choice(chosen, 2), *random.choice(filler, 8)]).encode()
                    member = tarfile.TarInfo(f"aclImdb/{part}/{label}/{number}_7.txt")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


@pytest.fixture(scope="session")
def made_up_dogfish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with features in the published format of Dogfish."""
    folder = tmp_path_factory.mktemp("dogfish")
    random = np.random.default_rng(0)
    for part, size in (("train", 90), ("test", 30)):
        labels = np.arange(size) % 2
        features = random.normal(size=(size, 2048)) + 0.2 * labels[:, None]
        name = f"dogfish_900_300_inception_features_new_{part}.npz"
        np.savez(folder / name, inception_features_val=features, labels=labels * 1.0)
    return folder
