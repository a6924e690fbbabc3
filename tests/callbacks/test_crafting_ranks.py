from __future__ import annotations

from pathlib import Path

import pytest
import torch
from crafting_ranks import INPUTS, LABELS

from lightning_poison.poisons import FlipList
from tests.rank_runs import run_on_ranks

SCRIPT = Path(__file__).with_name("crafting_ranks.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return folder, run_on_ranks(SCRIPT, folder)


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
        written = FlipList.read(folder / f"crafted{devices}" / "report" / "crafted_flips.csv")
        weights, bias = (torch.tensor(reports[name][part]) for part in ("weights", "bias"))
        sure = (INPUTS @ weights.T + bias).softmax(dim=1)[torch.arange(48), LABELS].tolist()
        least = sorted(row for label in range(3) for row in sorted(range(label, 48, 3), key=sure.__getitem__)[:2])
        assert written.index.tolist() == reports[name]["crafted"] == least
    assert reports["first"]["weights"] == reports["second"]["weights"]


@pytest.mark.slow
def test_added_points_are_dealt_to_the_ranks_as_one_process_sees_them(runs):
    _, reports = runs
    assert reports["first"]["placed"] == reports["second"]["placed"] == reports["one"]["placed"]
    dealt = [reports[name]["seen"] for name in ("first", "second")]
    whole = reports["one"]["seen"]
    assert [len(epoch) for epoch in whole] == [48 + 3] * 2
    for epoch in range(2):
        one, parts = whole[epoch], [seen[epoch] for seen in dealt]
        together = [parts[place % 2][place // 2] for place in range(52)]
        assert together == [*one, one[0]]


@pytest.mark.slow
def test_a_mistake_is_told_to_every_rank(runs):
    _, reports = runs
    assert {report["error"] for report in reports.values()} == {"this strategy has no answer; take another"}
