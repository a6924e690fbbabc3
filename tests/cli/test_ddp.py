"""Two processes give the flips and the numbers of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_poison.datamodules import Digits, PoisonedDataModule
from lightning_poison.poisons import FlipList, LabelFlips, RandomPoints

# 300 training and 29 validation points: neither splits evenly.
ARGUMENTS = ("--config", "digits.yaml", "--data.max_samples=300", "--data.val_split=29", "--compare_with_clean=false")
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


def run(folder: Path, *arguments: str) -> tuple[Path, dict[str, float]]:
    ran = subprocess.run(
        [sys.executable, "-m", "lightning_poison", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    last = Path(ran.stdout.rstrip().splitlines()[-1])
    assert ran.stdout.count(str(last)) == 1  # said once, by rank zero
    content = json.loads((folder / last.parent / "report.json").read_text()) if last.suffix == ".html" else {}
    return folder / last, content.get("metrics", {})


def assert_same(one: dict[str, float], two: dict[str, float]) -> None:
    """Counts are equal to the last digit; a mean of losses may differ by the order of its sum."""
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert value == (pytest.approx(two[key], rel=1e-5) if key.endswith("/loss") else two[key]), key


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    page, fitted = run(tmp_path, "fit", *ARGUMENTS, "--trainer.max_epochs=2", *TWO)
    checkpoint = ("--ckpt_path", str(next((page.parents[1] / "checkpoints").glob("epoch*.ckpt"))))
    data = PoisonedDataModule(Digits(max_samples=300, val_split=29), LabelFlips(RandomPoints(per_class=5)), seed=0)
    data.setup("fit")
    assert FlipList.read(page.parent / "flips.csv").index.equal(data.flips.index)

    one_page, one = run(tmp_path, "validate", *ARGUMENTS, *checkpoint)
    two_page, two = run(tmp_path, "validate", *ARGUMENTS, *checkpoint, *TWO)
    assert {"val/acc", "val/adv_acc", "cert/acc_at_1"} <= one.keys()
    assert_same(one, two)
    assert (one_page.parent / "certificates.csv").read_text() == (two_page.parent / "certificates.csv").read_text()

    _, tested = run(tmp_path, "test", *ARGUMENTS, *checkpoint)  # fit on two ranks ended with the same test
    assert_same(tested, {key: fitted[key] for key in tested})

    one_page, _ = run(tmp_path, "predict", *ARGUMENTS, *checkpoint)
    two_page, _ = run(tmp_path, "predict", *ARGUMENTS, *checkpoint, *TWO)
    ones, twos = ([line.rsplit(",", 1)[0] for line in page.read_text().splitlines()] for page in (one_page, two_page))
    assert ones == twos
