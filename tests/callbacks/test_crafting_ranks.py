from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import lightning_poison
from lightning_poison.poisons import FlipList

SCRIPT = Path(__file__).with_name("crafting_ranks.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(Path(lightning_poison.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PL_")}
    for devices in (1, 2):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(folder), str(devices)],
            env={**environment, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    names = {"one": "rank0of1", "first": "rank0of2", "second": "rank1of2"}
    for _ in range(100):  # the second rank may write a little later
        if all((folder / f"{name}.json").exists() for name in names.values()):
            break
        time.sleep(0.1)
    return folder, {key: json.loads((folder / f"{name}.json").read_text()) for key, name in names.items()}


@pytest.mark.slow
def test_rank_zero_draws_for_all_even_if_it_takes_longer_than_ranks_wait(runs):
    _, reports = runs
    assert reports["first"]["slow"] == reports["second"]["slow"] == reports["one"]["slow"] == [0, 1, 2, 3, 4]
    assert reports["first"]["calls"] == reports["one"]["calls"] == ["OfThisRank", "LeastSure", "OfThisRank"]
    assert reports["second"]["calls"] == []


@pytest.mark.slow
def test_every_rank_learns_what_was_crafted(runs):
    folder, reports = runs
    assert reports["first"]["crafted"] == reports["second"]["crafted"]
    assert reports["first"]["own"] == reports["second"]["own"] == reports["one"]["own"]
    for devices, name in ((1, "one"), (2, "first")):
        weights = torch.tensor(reports[name]["weights"])
        assert (
            FlipList.read(folder / f"crafted{devices}" / "report" / "crafted_flips.csv").index.tolist()
            == (reports[name]["crafted"])
        )
        assert weights.shape == (3, 4)
    assert reports["first"]["weights"] == reports["second"]["weights"]


@pytest.mark.slow
def test_added_points_are_dealt_to_the_ranks_as_one_process_sees_them(runs):
    _, reports = runs
    assert reports["first"]["placed"] == reports["second"]["placed"] == reports["one"]["placed"]
    dealt = [reports[name]["seen"] for name in ("first", "second")]
    whole = reports["one"]["seen"]
    assert len(whole) == 2 * (48 + 3)
    for epoch in range(2):
        one = [row[1:] for row in whole if row[0] == epoch]
        parts = [[row[1:] for row in seen if row[0] == epoch] for seen in dealt]
        together = [parts[place % 2][place // 2] for place in range(52)]
        assert together == [*one, one[0]]


@pytest.mark.slow
def test_a_mistake_is_told_to_every_rank(runs):
    _, reports = runs
    assert {report["error"] for report in reports.values()} == {"this strategy has no answer; take another"}
