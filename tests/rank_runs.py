"""Scripts that run on one process and on two, and what each of their ranks writes down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPORTS = {"one": (0, 1), "first": (0, 2), "second": (1, 2)}


def report_file(folder: Path, rank: int, devices: int) -> Path:
    return folder / f"rank{rank}of{devices}.json"


def run_on_ranks(script: Path, folder: Path, timeout: int = 200) -> dict[str, Any]:
    """What the ranks of ``script FOLDER DEVICES`` wrote: the ``one`` of one, ``first`` and ``second`` of two."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PL_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for devices in (1, 2):
        code, errors = _run([sys.executable, str(script), str(folder), str(devices)], environment, timeout)
        assert code == 0, errors[-3000:]
        missing = [rank for rank in range(devices) if not report_file(folder, rank, devices).exists()]
        assert not missing, errors[-3000:]
    return {name: json.loads(report_file(folder, *place).read_text()) for name, place in REPORTS.items()}


def write_report(folder: Path, devices: int, report: dict[str, Any]) -> None:
    """Called by the script, on every rank."""
    report_file(folder, int(os.environ.get("LOCAL_RANK", "0")), devices).write_text(json.dumps(report))


def _run(command: list[str], environment: dict[str, str], timeout: int) -> tuple[int, str]:
    """Exit code and standard error; no rank outlives this, also where all of them hang."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            # The pipes are read until every rank has closed them, so the second rank has ended too.
            errors = process.communicate(timeout=timeout)[1]
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, errors
