"""Two processes give the flips and the numbers of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    page, fitted = run(tmp_path, "fit", *ARGUMENTS, "--trainer.max_epochs=2", *TWO)
    single, _ = run(tmp_path, "fit", *ARGUMENTS, "--trainer.max_epochs=2", "--test_after_fit=false")
    assert (page.parent / "flips.csv").read_text() == (single.parent / "flips.csv").read_text()
    assert (page.parent / "certificates.csv").read_text() != ""
    checkpoint = next((page.parents[1] / "checkpoints").glob("epoch*.ckpt"))
    for command in ("validate", "test"):
        one_page, one = run(tmp_path, command, *ARGUMENTS, "--ckpt_path", str(checkpoint))
        two_page, two = run(tmp_path, command, *ARGUMENTS, "--ckpt_path", str(checkpoint), *TWO)
        counted = {key for key in one if not key.endswith("/loss")}
        assert {"acc", "adv_acc"} <= {key.split("/")[1] for key in counted}
        assert {key: one[key] for key in counted} == {key: two[key] for key in counted}
        for key in one.keys() - counted:
            assert one[key] == pytest.approx(two[key], rel=1e-5)
        assert (one_page.parent / "certificates.csv").read_text() == (two_page.parent / "certificates.csv").read_text()
        if command == "test":  # fit on two ranks ended with the same test
            assert {key: fitted[key] for key in counted} == {key: one[key] for key in counted}
    one_page, _ = run(tmp_path, "predict", *ARGUMENTS, "--ckpt_path", str(checkpoint))
    two_page, _ = run(tmp_path, "predict", *ARGUMENTS, "--ckpt_path", str(checkpoint), *TWO)
    ones, twos = ([line.rsplit(",", 1)[0] for line in page.read_text().splitlines()] for page in (one_page, two_page))
    assert ones == twos
