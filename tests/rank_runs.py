"""Scripts that run on one process and on two, and what each of their ranks writes down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPORTS = {"one": (0, 1), "first": (0, 2), "second": (1, 2)}


def report_file(folder: Path, rank: int, devices: int) -> Path:
    return folder / f"rank{rank}of{devices}.json"


def run_on_ranks(script: Path, folder: Path) -> dict[str, Any]:
    """What the ranks of ``script FOLDER DEVICES`` wrote: the ``one`` of one, ``first`` and ``second`` of two."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PL_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for devices in (1, 2):
        # The pipes are read until every rank has closed them, so the second rank has ended too.
        done = subprocess.run(
            [sys.executable, str(script), str(folder), str(devices)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        missing = [rank for rank in range(devices) if not report_file(folder, rank, devices).exists()]
        assert not missing, done.stderr[-3000:]
    return {name: json.loads(report_file(folder, *place).read_text()) for name, place in REPORTS.items()}


def write_report(folder: Path, devices: int, report: dict[str, Any]) -> None:
    """Called by the script, on every rank."""
    report_file(folder, int(os.environ.get("LOCAL_RANK", "0")), devices).write_text(json.dumps(report))
