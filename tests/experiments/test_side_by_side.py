from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from joblib import parallel_config

from lightning_poison.experiments import VictimPlan
from lightning_poison.experiments import experiment as experiment_module
from tests.experiments.experiment_runs import FOUR_SEEDS, RECIPE, SMALL, run


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_numbers(tmp_path: Path) -> None:
    victims = {"MLP": VictimPlan(SMALL, RECIPE), "other": VictimPlan(partial(SMALL, hidden=(8,)), RECIPE)}
    assert run(tmp_path / "one", victims=victims) == run(tmp_path / "more", victims=victims, jobs=2)


def test_the_backend_of_joblib_is_the_caller_s(tmp_path: Path, trained: list[int]) -> None:
    with parallel_config(backend="threading"):
        results = run(tmp_path / "threads", jobs=2)
    assert sum(trained) == 4  # in this process: others would not know what has been put in the place of training
    assert [each.split(", ")[:2] for each in results] == [each.split(", ")[:2] for each in run(tmp_path / "one")]


CODE = """
import sys
sys.path.insert(0, {root!r})
import torch; torch.set_num_threads(1)
from pathlib import Path
from tests.experiments.experiment_runs import FOUR_SEEDS, run
if __name__ == "__main__":
    run(Path({folder!r}), jobs={jobs}, **FOUR_SEEDS)
"""


def start(folder: Path, jobs: int = 1) -> subprocess.Popen[bytes]:
    code = CODE.format(root=str(Path(__file__).parents[2]), folder=str(folder), jobs=jobs)
    script = folder.with_suffix(f".{jobs}.py")
    script.write_text(code)
    return subprocess.Popen([sys.executable, str(script)], start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_experiment_goes_on(tmp_path: Path, jobs: int) -> None:
    killed = tmp_path / "killed"
    process = start(killed, jobs)
    deadline = time.monotonic() + 60
    while len(list((killed / "runs").glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "it has ended by itself"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in (killed / "runs").glob("*.json")}
    assert 2 <= len(done) < 8
    resumed = run(killed, **FOUR_SEEDS)
    assert resumed == run(tmp_path / "whole", **FOUR_SEEDS)
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    processes = [start(folder, 1), start(folder, 2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert run(folder, **FOUR_SEEDS) == run(tmp_path / "alone", **FOUR_SEEDS)
    assert len(list((folder / "runs").iterdir())) == 8
    assert not list(folder.glob(".progress*"))


def test_what_another_process_has_finished_meanwhile_is_taken_over(tmp_path: Path, trained: list[int]) -> None:
    """While the first run is in training, another process finishes the rest."""
    inner = experiment_module.train_networks
    rest = threading.Event()

    def meanwhile(*arguments, **named):
        if not rest.is_set():
            rest.set()
            run(tmp_path)
        return inner(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment_module, "train_networks", meanwhile)
        results = run(tmp_path)
    assert trained == [1] * 5  # every run by the other process, and the first by this one too
    trained.clear()
    assert run(tmp_path) == results
    assert trained == []
